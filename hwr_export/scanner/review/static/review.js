// One referred field after another: asks the server, takes keys, sends answers. The server keeps; nothing is kept here.

import { Editor } from "./editor.js";
import { $, Sheet, element, sizePicture, showBoxes, showCard, showFinished, showLoupe, showProgress, showProposals, showVerdict } from "./views.js";

const SETTLE_MS = 150;
const sheet = new Sheet();
const state = {
  by: "",
  about: null,
  card: null,
  editor: null,
  verdict: null, // of what stands there now; null until the server has judged it
  checking: null,
  turn: null,
  armed: false, // it was said that what stands there is not valid, and the next Enter keeps it
  busy: false,
  drawn: false, // nothing is accepted before its picture was seen
  ready: false, // nor by the second stroke of a key that was meant once
};

// -- the server --------------------------------------------------------------------------------------------------------

async function call(name, body) {
  let answer;
  try {
    answer = await fetch(`/api/${name}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The review was ended: start `hwr-export review` again. Everything answered is kept.");
  }
  const found = await answer.json().catch(() => ({ error: "This link is of an earlier review: open the one that was printed last." }));
  if (!answer.ok) throw Object.assign(new Error(found.error), { status: answer.status });
  return found;
}

// One call that changes something at a time; a field that was taken meanwhile gives way to the next.
async function change(name, body) {
  if (state.busy) return;
  state.busy = true;
  $("work").setAttribute("aria-busy", "true");
  try {
    const found = await call(name, body);
    if (name !== "undo") said(found, body);
    await show(found, name === "undo");
  } catch (error) {
    if (error.status === 409) {
      announce(error.message);
      await show(await call("next", { by: state.by }));
    } else {
      complain(error.message);
    }
  } finally {
    state.busy = false;
    $("work").removeAttribute("aria-busy");
  }
}

function said(found, body) {
  const kept = found.kept;
  if (!kept) return;
  const value = kept.unreadable ? `cannot be read, ${kept.unreadable}` : kept.value || "empty";
  announce(`Kept: ${value}.`);
  $("note").hidden = !found.remark;
  $("note").textContent = found.remark;
}

// -- one field ---------------------------------------------------------------------------------------------------------

async function show(found, undone = false) {
  showProgress(found.progress, state.by);
  if (undone && !found.undone) return announce("There is nothing to take back.");
  if (!found.item) return finish(found.progress);
  const card = found.item;
  $("desk").hidden = false;
  $("finished").hidden = true;
  Object.assign(state, { card, verdict: null, armed: false, drawn: Boolean(card.problem) });
  showCard(card);
  forget();
  $("no-picture").hidden = !card.problem;
  $("no-picture").textContent = card.problem;
  $("picture").classList.toggle("missing", Boolean(card.problem));
  const image = $("field");
  image.classList.remove("drawn");
  if (card.problem) image.removeAttribute("src");
  else image.src = `/pictures/${card.number}/field.png`;
  $("closely").removeAttribute("src");
  state.editor = new Editor($("editor"), card.field, card.start, card.characters, changed);
  state.editor.touched = undone;
  place();
  sheet.show(card);
  changed();
  settle();
  $("editor").focus({ preventScroll: true });
  if (undone) announce(`Taken back: ${card.field.label}.`);
}

function place() {
  if (!state.card || $("desk").hidden) return;
  state.wide = sizePicture(state.card);
  state.editor.place(state.card.boxes, state.wide);
  moved();
}

function moved() {
  showBoxes(state.card, state.editor.cursor);
  showLoupe(state.card, state.editor.cursor, state.wide);
  $("spoken").textContent = state.editor.spoken();
}

function changed() {
  const { card, editor } = state;
  seen(); // who changes something has seen it
  state.armed = false;
  moved();
  showProposals(card, editor.text, editor.unreadable, choose);
  const turn = {};
  Object.assign(state, { turn, verdict: null });
  state.checking = call("check", { number: card.number, look: card.look, written: editor.text }).then(
    (verdict) => {
      if (state.turn !== turn) return; // something else stands there by now
      state.verdict = verdict;
      showVerdict(verdict, editor, state.armed);
    },
    (error) => complain(error.message),
  );
}

function choose(i) {
  const proposal = state.card.proposals[i];
  if (!proposal) return;
  state.editor.set(proposal.written, proposal.unreadable);
  $("editor").focus({ preventScroll: true });
}

function step(by) {
  const { card, editor } = state;
  const at = card.proposals.findIndex((p) => p.written === editor.text && p.unreadable === editor.unreadable);
  const to = at < 0 ? (by > 0 ? 0 : card.proposals.length - 1) : at + by;
  choose(Math.max(0, Math.min(card.proposals.length - 1, to)));
}

async function accept() {
  const { card, editor } = state;
  if (state.busy || !card) return;
  await state.checking; // what it says would take the place of what is said here
  if (state.busy || card !== state.card || editor !== state.editor) return;
  if (!state.drawn) return complain("The picture is still being drawn.");
  if (card.look === 3 && !editor.touched) return complain("Two people differ: choose with ↑ or ↓, or write what you see.");
  if (!state.verdict || !state.ready) return;
  if (editor.unreadable) return keep({ unreadable: editor.unreadable });
  if (editor.isCheckbox && !editor.text) return complain("Say whether it is ticked: Y or N.");
  if ((!state.verdict.valid || state.verdict.remarks.length) && !state.armed) {
    state.armed = true;
    settle();
    return showVerdict(state.verdict, editor, true);
  }
  return keep({ written: editor.text });
}

function keep(answer) {
  return change("answer", { by: state.by, number: state.card.number, look: state.card.look, ...answer });
}

function skip() {
  return change("skip", { by: state.by, number: state.card.number, look: state.card.look });
}

function undo() {
  return change("undo", { by: state.by });
}

function finish(progress) {
  Object.assign(state, { card: null, editor: null });
  $("desk").hidden = true;
  $("finished").hidden = false;
  showFinished(progress, state.about, state.by);
  $("finished-title").focus();
  announce($("finished-title").textContent);
}

// For a moment after something new is seen, Enter is taken for a stroke that was meant for what was there before.
function settle() {
  state.ready = false;
  $("work").removeAttribute("data-ready");
  clearTimeout(state.settling);
  state.settling = setTimeout(seen, SETTLE_MS);
}

function seen() {
  if (!state.drawn) return;
  clearTimeout(state.settling);
  state.ready = true;
  $("work").setAttribute("data-ready", "");
}

// Nothing that was said of the field before may stand below this one.
function forget() {
  $("value").replaceChildren();
  $("messages").replaceChildren();
  $("editor").removeAttribute("aria-invalid");
}

function complain(message) {
  $("messages").replaceChildren(element("p", message, "bad"));
  if ($("desk").hidden) $("finished-text").textContent = message;
}

function announce(message) {
  $("announced").textContent = message;
}

// -- why it cannot be read ---------------------------------------------------------------------------------------------

function askWhy() {
  $("why-list").replaceChildren(
    ...state.about.unreadable.map((reason, i) => {
      const button = element("button", "", "choice");
      button.type = "button";
      button.append(element("kbd", String(i + 1)), ` ${reason}`);
      button.addEventListener("click", () => unreadable(reason));
      const item = element("li");
      item.append(button);
      return item;
    }),
  );
  $("why-other").value = "";
  $("why").showModal();
}

function unreadable(reason) {
  if (!reason.trim()) return;
  $("why").close();
  keep({ unreadable: reason.trim() });
}

$("why").addEventListener("keydown", (event) => {
  const reason = state.about.unreadable[Number(event.key) - 1];
  if (event.target === $("why-other")) {
    if (event.key === "Enter") unreadable($("why-other").value);
  } else if (reason) {
    event.preventDefault();
    unreadable(reason);
  }
});
$("why-keep").addEventListener("click", () => unreadable($("why-other").value));
$("why-back").addEventListener("click", () => $("why").close());

// -- keys --------------------------------------------------------------------------------------------------------------

const COMMANDS = {
  "?": () => $("keys").showModal(),
  "*": askWhy,
  F2: askWhy,
  "+": skip,
  F8: skip,
  ArrowUp: () => step(-1),
  ArrowDown: () => step(1),
  Escape: () => state.editor.restart(),
  PageDown: () => sheet.zoom(true),
  PageUp: () => sheet.zoom(false),
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
    event.preventDefault();
    undo();
  }
  if (event.ctrlKey && ["Backspace", "Delete"].includes(event.key) && state.card && !state.busy) {
    event.preventDefault();
    state.editor.clear();
    moved();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = event.target instanceof Element && event.target.closest("button");
  if (onButton && (event.key === "Enter" || event.key === " ")) return;
  if (!state.card) {
    if (event.key === "?") $("keys").showModal();
    if (event.key.toLowerCase() === "u") undo();
    return;
  }
  if (takes(event)) event.preventDefault();
});

// Return whether a key meant something.
function takes(event) {
  const { key } = event;
  if (key === "Enter") {
    if (!event.repeat) accept();
    return true;
  }
  if (state.busy) return key.length === 1;
  if (key.toLowerCase() === "u" && !state.card.field.letters) {
    undo();
    return true;
  }
  if (key in COMMANDS) {
    COMMANDS[key]();
    return true;
  }
  const taken = state.editor.key(key);
  if (taken) {
    $("editor").focus({ preventScroll: true });
    moved();
  }
  return taken;
}

for (const [id, does] of Object.entries({
  accept,
  unreadable: askWhy,
  skip,
  undo,
  "undo-last": undo,
  again: () => change("next", { by: state.by }),
  "show-keys": () => $("keys").showModal(),
  closer: () => sheet.zoom(!sheet.closer),
})) {
  $(id).addEventListener("click", () => {
    does();
    if (state.card && !document.querySelector("dialog[open]")) $("editor").focus({ preventScroll: true });
  });
}
$("editor").addEventListener("click", (event) => {
  if (state.editor.isCheckbox) state.editor.key(" ");
  const slot = event.target.closest("[data-slot]");
  if (slot) state.editor.moveTo(Number(slot.dataset.slot));
  moved();
});
$("field").addEventListener("load", () => {
  $("field").classList.add("drawn");
  $("closely").src = $("field").src;
  state.drawn = true;
  settle();
});
$("field").addEventListener("error", () => {
  if (!$("field").hasAttribute("src")) return;
  $("no-picture").textContent = "The picture of the field could not be drawn.";
  $("no-picture").hidden = false;
  state.drawn = true;
  settle();
});
new ResizeObserver(place).observe($("paper"));

// -- the beginning -----------------------------------------------------------------------------------------------------

async function begin() {
  history.replaceState(null, "", "/"); // the link's token is of no more use, and of no business of the screen's
  try {
    state.about = await call("begin", {});
    $("title").textContent = state.about.title;
    document.title = `${state.about.title}: review`;
    state.by = state.about.by || sessionStorage.getItem("by") || (await askWho());
    sessionStorage.setItem("by", state.by);
    await show(await call("next", { by: state.by }));
  } catch (error) {
    $("counts").textContent = error.message;
  }
}

function askWho() {
  return new Promise((named) => {
    $("who").addEventListener("cancel", (event) => event.preventDefault());
    $("who-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = $("who-name").value.trim();
      if (!name) return;
      $("who").close();
      named(name);
    });
    $("who").showModal();
  });
}

begin();
