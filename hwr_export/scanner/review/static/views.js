// Documents of the server -> what is seen of them. Everything that comes from files goes in as text, never as markup.

import { percent } from "./editor.js";

const PIXELS_PER_MM = 15; // of a field's picture at most, on a screen of the usual size
const CLOSER = 2.8; // times the pane's width

export const $ = (id) => document.getElementById(id);

export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function list(id, items) {
  $(id).replaceChildren(...items);
  $(`${id}-part`)?.toggleAttribute("hidden", items.length === 0);
}

export function showProgress(progress, by) {
  const { of, done, second, third } = progress;
  $("bar").max = Math.max(1, of);
  $("bar").value = done;
  const waiting = [second && `${number(second)} for a second look`, third && `${number(third)} for a third`];
  $("counts").textContent = [`${number(done)} of ${number(of)}`, ...waiting.filter(Boolean)].join(", ");
  const pace = progress.a_minute;
  const minutes = pace ? progress.looks_left / pace : 0;
  $("pace").textContent = pace && progress.looks_left ? `${Math.round(pace)} a minute, ${left(minutes)}` : "";
  $("by").textContent = by;
  for (const id of ["undo", "undo-last"]) $(id).disabled = !progress.can_undo;
}

function left(minutes) {
  if (minutes < 1.5) return "nearly done";
  if (minutes < 90) return `about ${Math.round(minutes)} minutes left`;
  return `about ${Math.round(minutes / 60)} hours left`;
}

export function number(value) {
  return value.toLocaleString("en");
}

export function showCard(card) {
  const looks = {
    2: "Second look: write what you see. What was read, and what the first person wrote, is not shown.",
    3: "Third look: two people differ. Choose with ↑ and ↓, or write what you see.",
  };
  $("look").hidden = !looks[card.look] && !card.skipped;
  $("look").textContent = [looks[card.look], card.skipped && "You put this one off before."].filter(Boolean).join(" ");
  $("label").textContent = card.field.label;
  $("may").textContent = card.field.may.join(" ");
  list("reasons", card.reasons.map((reason) => element("li", sentence(reason))));
  $("page-name").textContent = card.page.split("/").at(-1);
  $("page-name").title = card.page;
  $("remark").hidden = !card.remark;
  $("remark").textContent = card.remark;
}

function sentence(words) {
  return words ? `${words[0].toUpperCase()}${words.slice(1)}.` : "";
}

// Return the width of the field's picture, in pixels of the page.
export function sizePicture(card) {
  const paper = $("paper");
  const room = paper.clientWidth;
  const { width_mm: width, height_mm: height } = card.window;
  const wide = Math.min(room, width * PIXELS_PER_MM * Math.max(1, window.innerWidth / 1500));
  paper.style.setProperty("--width", `${wide}px`);
  paper.style.setProperty("--height", `${(wide * height) / width}px`);
  return wide;
}

export function showBoxes(card, cursor) {
  $("boxes").replaceChildren(
    ...card.boxes.map(([x, y, w, h], i) => {
      const box = element("span", "", i === cursor ? "box here" : "box");
      Object.assign(box.style, { left: share(x), top: share(y), width: share(w), height: share(h) });
      return box;
    }),
  );
}

const SMALL_PX = 44; // a box narrower than this is shown closely too, beside what is said of the field
const LOUPE = [230, 108]; // pixels

// Show the box under the cursor closely, with its neighbours, where the whole field is so long that boxes are small.
export function showLoupe(card, cursor, wide) {
  const box = card.boxes[Math.min(cursor, card.boxes.length - 1)];
  const small = Boolean(box) && !card.problem && box[2] * wide < SMALL_PX;
  $("loupe").hidden = !small;
  if (!small) return;
  const high = (wide * card.window.height_mm) / card.window.width_mm;
  const [x, y, w, h] = box;
  const scale = (LOUPE[1] * 0.8) / (h * high);
  Object.assign($("loupe").style, { width: `${LOUPE[0]}px`, height: `${LOUPE[1]}px` });
  Object.assign($("closely").style, {
    width: `${wide * scale}px`,
    height: `${high * scale}px`,
    left: `${LOUPE[0] / 2 - (x + w / 2) * wide * scale}px`,
    top: `${LOUPE[1] / 2 - (y + h / 2) * high * scale}px`,
  });
}

function share(fraction) {
  return `${100 * fraction}%`;
}

export function showProposals(card, text, unreadable, choose) {
  list(
    "proposals",
    card.proposals.map((proposal, i) => {
      const button = element("button", "", "proposal");
      button.type = "button";
      button.dataset.proposal = i;
      const chosen = proposal.written === text && proposal.unreadable === unreadable;
      button.setAttribute("aria-pressed", String(chosen));
      const says = proposal.unreadable ? `cannot be read: ${proposal.unreadable}` : proposal.shown || "empty";
      button.append(element("span", says, "says"));
      const sure = proposal.confidence === null ? "" : `${percent(proposal.confidence)} sure`;
      button.append(element("span", [proposal.from === "or" ? "" : proposal.from, sure].filter(Boolean).join(", "), "quiet"));
      button.addEventListener("click", () => choose(i));
      const item = element("li");
      item.append(button);
      return item;
    }),
  );
}

export function showVerdict(verdict, editor, armed) {
  const plain = verdict.shown === editor.text || editor.isCheckbox || editor.unreadable;
  const shown = plain ? "" : verdict.shown || "nothing is written";
  $("value").replaceChildren(element("span", shown));
  const messages = [];
  if (editor.unreadable) {
    messages.push(element("p", `It cannot be read: ${editor.unreadable}. The field stays empty.`, "ok"));
  } else {
    // Of an empty field that nobody has touched yet, nothing is held against anybody.
    const begun = editor.text || editor.touched || armed;
    for (const problem of begun ? verdict.problems : []) messages.push(element("p", problem, "bad"));
    for (const rule of verdict.rules) {
      if (rule.kept === false) messages.push(element("p", `It is not so that ${rule.says}.`, "bad"));
    }
    for (const remark of verdict.remarks) messages.push(element("p", remark, "bad"));
    if (armed) messages.push(element("p", "Enter once more keeps it as written.", "armed"));
  }
  $("messages").replaceChildren(...messages);
  $("editor").setAttribute("aria-invalid", String(!verdict.valid));
  list(
    "rules",
    verdict.rules.map((rule) => {
      const item = element("li", "", rule.kept === null ? "" : rule.kept ? "kept" : "broken");
      item.append(element("span", `${rule.says}.`));
      for (const other of rule.others) {
        item.append(element("span", `${other.label}: ${other.value ?? "not settled yet"}`, "quiet"));
      }
      return item;
    }),
  );
}

// -- the page beside the field -----------------------------------------------------------------------------------------

export class Sheet {
  constructor() {
    this.closer = false;
    this.path = "";
    $("page").addEventListener("load", () => this.look());
    $("page").addEventListener("error", () => $("page").removeAttribute("src"));
    $("pane").addEventListener("click", (event) => {
      const area = $("page").getBoundingClientRect();
      const at = [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
      this.zoom(!this.closer, at);
    });
  }

  show(card) {
    const { width_mm: width, height_mm: height } = card.sheet;
    $("whole").style.setProperty("aspect-ratio", `${width} / ${height}`);
    const [x, y, w, h] = card.area;
    Object.assign($("mark").style, { left: share(x), top: share(y), width: share(w), height: share(h) });
    $("mark").hidden = Boolean(card.problem);
    this.card = card;
    if (card.problem) {
      $("page").removeAttribute("src");
      this.path = "";
    } else if (card.page !== this.path) {
      this.path = card.page;
      this.draw();
    }
    this.look();
  }

  draw() {
    $("page").src = `/pictures/${this.card.number}/page-${this.closer ? 2600 : 900}.jpg`;
  }

  // at: the point to look at closely, as fractions of the page; else the field.
  zoom(closer, at = null) {
    if (closer === this.closer) return;
    this.closer = closer;
    $("pane").classList.toggle("closer", closer);
    $("closer").setAttribute("aria-pressed", String(closer));
    $("closer").firstChild.textContent = closer ? "Whole page " : "Closer ";
    $("closer").lastChild.textContent = closer ? "PgUp" : "PgDn";
    if (this.card && !this.card.problem) this.draw();
    this.look(at);
  }

  look(at = null) {
    $("whole").style.width = this.closer ? `${100 * CLOSER}%` : "100%";
    if (!this.card) return;
    const [x, y, w, h] = this.card.area;
    const [left, top] = at ?? [x + w / 2, y + h / 2];
    const pane = $("pane");
    pane.scrollTo(left * pane.scrollWidth - pane.clientWidth / 2, top * pane.scrollHeight - pane.clientHeight / 2);
  }
}

// -- the end -----------------------------------------------------------------------------------------------------------

export function showFinished(progress, about, by) {
  const waiting = progress.second + progress.third;
  const open = progress.of - progress.done - waiting;
  const nothing = progress.of === 0;
  $("finished-title").textContent = nothing
    ? "No field was referred"
    : waiting || open
      ? `Nothing is left for ${by}`
      : "All fields are settled";
  $("finished-text").textContent =
    waiting || open
      ? `${number(waiting + open)} fields wait for another person's look: open this page in a window of their own.`
      : "Write the values with hwr-export review RESULTS --export FILE.csv. This window can be closed.";
  const counts = [
    ["Pages", about.pages],
    ["Fields accepted without a person", about.accepted],
    ["Fields settled by people", progress.done],
    ["of them could not be read", progress.unreadable],
    ["Pages refused", about.refused_count],
  ];
  $("finished-counts").replaceChildren(
    ...counts.flatMap(([name, count]) => [element("dt", name), element("dd", number(count))]),
  );
  list("refused", about.refused.map(({ page, reason }) => element("li", `${page}: ${reason}`)));
}
