// What stands in a field, box by box, and the keys that change it. It knows nothing of the page around it.

const EMPTY = " ";

export class Editor {
  // field: as the server describes it; start: what stands there at first, a space for an empty box;
  // characters: what the model says of each box.
  constructor(element, field, start, characters, changed) {
    Object.assign(this, { element, field, characters, changed });
    this.isCheckbox = field.kind === "checkbox";
    this.isLine = !this.isCheckbox && field.slots === null;
    this.first = this.fitted(start);
    this.reset();
  }

  // -- state -----------------------------------------------------------------------------------------------------------

  fitted(text) {
    if (this.isCheckbox) return text ? [text] : [];
    const slots = [...text];
    if (this.isLine) return slots;
    while (slots.length < this.field.slots) slots.push(EMPTY);
    return slots.slice(0, this.field.slots);
  }

  reset() {
    this.slots = [...this.first];
    this.unreadable = "";
    this.touched = false;
    this.cursor = this.doubtful();
    this.show();
  }

  restart() {
    this.reset();
    this.changed();
  }

  clear() {
    this.set("");
    this.cursor = this.doubtful();
    this.show();
  }

  moveTo(slot) {
    this.cursor = slot;
    this.show();
  }

  set(text, unreadable = "") {
    this.slots = this.fitted(text);
    this.unreadable = unreadable;
    this.touched = true;
    this.cursor = Math.min(this.cursor ?? 0, this.slots.length);
    this.show();
    this.changed();
  }

  get text() {
    return this.slots.join("").trimEnd();
  }

  // The cursor begins where the model is least sure; in an empty amount behind the last box, as on a calculator.
  doubtful() {
    if (!this.text) return this.field.right ? this.slots.length : 0;
    const sure = this.slots.map((_, i) => this.characters[i]?.confidence ?? 1);
    const least = sure.indexOf(Math.min(...sure));
    return sure[least] < 0.95 ? least : Math.max(0, this.slots.findIndex((c) => c !== EMPTY));
  }

  // -- keys ------------------------------------------------------------------------------------------------------------

  // Return whether a key was one of the editor's.
  key(name) {
    if (this.isCheckbox) return this.tick(name);
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -99, End: 99 };
    if (name in moves) return this.move(moves[name]);
    if (name === "Backspace") return this.backspace();
    if (name === "Delete") return this.remove(this.cursor);
    if (name === "Insert") return this.insert();
    if (name === EMPTY) return this.write(EMPTY);
    if (/^[\p{L}\p{N}]$/u.test(name)) return this.write(this.field.capitals ? name.toUpperCase() : name);
    return false;
  }

  tick(name) {
    const value = { y: "yes", n: "no", " ": this.text === "yes" ? "no" : "yes" }[name.toLowerCase()];
    if (!value) return false;
    this.set(value);
    return true;
  }

  move(by) {
    this.cursor = Math.max(0, Math.min(this.slots.length, this.cursor + by));
    this.show();
    return true;
  }

  write(character) {
    const slots = [...this.slots];
    if (this.cursor < slots.length) {
      slots[this.cursor] = character;
    } else if (this.isLine) {
      if (slots.length < 64) slots.push(character);
    } else if (this.field.right && slots[0] === EMPTY) {
      slots.shift(); // as on a calculator: what is there moves to the left
      slots.push(character);
    } else {
      return true; // the boxes are full
    }
    this.cursor = Math.min(slots.length, this.cursor + 1);
    this.take(slots);
    return true;
  }

  backspace() {
    if (this.cursor === 0) return true;
    if (!this.isLine && this.field.right && this.cursor === this.slots.length) {
      this.take([EMPTY, ...this.slots.slice(0, -1)]);
      return true;
    }
    this.cursor -= 1;
    return this.remove(this.cursor);
  }

  remove(at) {
    if (at >= this.slots.length) return true;
    const slots = [...this.slots];
    if (this.isLine) slots.splice(at, 1);
    else slots[at] = EMPTY;
    this.take(slots);
    return true;
  }

  insert() {
    const slots = [...this.slots];
    if (!this.isLine && slots.at(-1) !== EMPTY) return true;
    slots.splice(this.cursor, 0, EMPTY);
    if (!this.isLine) slots.pop();
    this.take(slots);
    return true;
  }

  take(slots) {
    const cursor = this.cursor;
    this.slots = slots;
    this.unreadable = "";
    this.touched = true;
    this.cursor = Math.min(cursor, slots.length);
    this.show();
    this.changed();
  }

  // -- what is seen ----------------------------------------------------------------------------------------------------

  // boxes: of the picture, as fractions [x, y, w, h]; slots stand below their boxes.
  place(boxes, width) {
    this.boxes = boxes;
    this.width = width;
    this.show();
  }

  show() {
    const editor = this.element;
    editor.replaceChildren();
    editor.className = `editor ${this.isCheckbox ? "tick" : this.isLine ? "line" : "boxed"}`;
    editor.setAttribute("role", this.isCheckbox ? "checkbox" : "textbox");
    if (this.isCheckbox) return this.showTick();
    editor.removeAttribute("aria-checked");
    const count = this.slots.length + (this.isLine ? 1 : 0);
    for (let i = 0; i < count; i += 1) editor.append(this.slot(i));
    if (!this.isLine && this.cursor === this.slots.length) editor.lastChild.classList.add("cursor-after");
  }

  showTick() {
    const ticked = this.text === "yes";
    this.element.setAttribute("aria-checked", this.text === "" ? "mixed" : String(ticked));
    const sign = document.createElement("span");
    sign.className = "tick-box";
    sign.textContent = ticked ? "✓" : "";
    const words = document.createElement("span");
    words.textContent = this.text === "" ? "ticked, or not?" : ticked ? "ticked" : "not ticked";
    this.element.append(sign, words);
  }

  slot(i) {
    const slot = document.createElement("span");
    const character = this.slots[i] ?? EMPTY;
    const seen = this.characters[i];
    slot.className = "slot";
    slot.dataset.slot = i;
    slot.classList.toggle("cursor", i === this.cursor);
    slot.classList.toggle("changed", character !== (this.first[i] ?? EMPTY));
    const letter = document.createElement("span");
    letter.className = "letter";
    letter.textContent = character === EMPTY ? "\u00a0" : character;
    slot.append(letter);
    if (seen && (seen.label ?? EMPTY) === character) {
      slot.append(this.sureness(seen.confidence, character));
    }
    const box = this.isLine ? null : this.boxes?.[i];
    if (box) {
      slot.style.left = `${box[0] * 100}%`;
      slot.style.width = `${box[2] * 100}%`;
      slot.style.fontSize = `${Math.max(16, Math.min(44, box[2] * this.width * 0.72))}px`;
    }
    return slot;
  }

  sureness(confidence, character) {
    const sure = document.createElement("span");
    sure.className = `sure ${confidence < 0.7 ? "low" : confidence < 0.95 ? "middle" : "high"}`;
    sure.title = `${character === EMPTY ? "empty" : character}: ${percent(confidence)} sure`;
    const wide = this.isLine || (this.boxes?.[0]?.[2] ?? 0) * (this.width ?? 0) > 26;
    if (confidence < 0.95 && wide) sure.textContent = Math.floor(100 * confidence);
    return sure;
  }

  // The same in words, for who hears the page.
  spoken() {
    if (this.unreadable) return `cannot be read: ${this.unreadable}`;
    if (this.isCheckbox) return "";
    const here = this.slots[this.cursor];
    const seen = this.characters[this.cursor];
    const what = here === undefined ? "behind the last" : here === EMPTY ? "empty" : here;
    const sure = here !== undefined && seen && (seen.label ?? EMPTY) === here ? `, ${percent(seen.confidence)} sure` : "";
    const at = Math.min(this.cursor + 1, this.slots.length);
    return `${this.slots.join(" ").trim() || "empty"}. Cursor on ${at} of ${this.slots.length}: ${what}${sure}`;
  }
}

export function percent(confidence) {
  return `${Math.floor(100 * confidence)} %`;
}
