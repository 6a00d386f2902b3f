"""Why a page is not read: a code for programs, a sentence for people."""

from hwr_export.errors import FormError


class PageRefused(FormError):  # noqa: N818  what it says is right, and no error
    """A page that is not read: `code` says what kind of page it is, the message why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
