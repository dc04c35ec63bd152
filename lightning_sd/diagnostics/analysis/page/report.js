"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const KEYS = "j / k or \u2193 / \u2191: next or previous rollout \u00b7 \u2190 / \u2192: tokens \u00b7 e: first wrong step";
  const state = { order: [], place: 0, token: null };

  // Everything that a model wrote goes through here: text nodes only, never markup.
  function make(tag, options = {}, ...children) {
    const { text, dir, ...rest } = options;
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(rest)) node.setAttribute(name, value);
    if (dir) node.dir = dir;
    if (text !== undefined && text !== null) node.textContent = text;
    node.append(...children);
    return node;
  }

  const foreign = (text, tag = "bdi", name = "text") => make(tag, { text, dir: "auto", class: name });
  const percent = (value) => `${(100 * value).toFixed(0)}%`;
  const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(3);

  function localization(row, name) {
    const found = row.contexts[name];
    return found ? found.localization : null;
  }

  function sorted(indices) {
    const [key, way] = at("sort").value.split("-");
    const by = at("by").value;
    const of = {
      accuracy: (row) => row.accuracy,
      localization: (row) => localization(row, by),
      length: (row) => row.tokens.length,
    }[key];
    if (!of) return indices;
    const factor = way === "up" ? 1 : -1;
    // Those without the figure come last either way.
    return [...indices].sort((a, b) => {
      const [x, y] = [of(data.rows[a]), of(data.rows[b])];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return factor * (x - y) || a - b;
    });
  }

  function kept(row) {
    const filter = at("filter").value;
    return filter === "all" || (filter === "wrong" ? !row.correct : row.wrong.length > 0);
  }

  function item(index) {
    const row = data.rows[index];
    const places = data.contexts.map((name) => [name, localization(row, name)]);
    const known = places.filter(([, value]) => value !== null);
    const small = known.length
      ? "localized " + known.map(([, value]) => percent(value)).join(" / ")
      : row.wrong.length ? "not scored" : row.errors_by ? "no wrong step" : "wrong steps unknown";
    return make(
      "li",
      { role: "option", id: `row-${index}`, "aria-selected": "false", "data-index": index },
      make("span", { text: row.correct ? "\u2713" : "\u2717", class: row.correct ? "right" : "wrong",
                     "aria-label": row.correct ? "right" : "wrong", role: "img" }),
      foreign(row.question.replace(/\s+/g, " "), "bdi", "question"),
      make("small", { text: `${small} \u00b7 ${percent(row.accuracy)} right`, title: [
        ...known.map(([name, value]) => `${name}: ${percent(value)} of the negative mass at or after the first wrong step`),
        `${percent(row.accuracy)} of the answers to this question are right`].join("; ") }),
    );
  }

  function arrange() {
    const current = state.order[state.place];
    const all = data.rows.map((_, index) => index).filter((index) => kept(data.rows[index]));
    state.order = sorted(all);
    at("list").replaceChildren(...state.order.map(item));
    at("number").textContent = `${state.order.length} of ${data.rows.length} rollouts`;
    const place = at("filter").value === state.filter ? 0 : state.order.indexOf(current);
    state.filter = at("filter").value;
    show(Math.max(0, place));
  }

  function show(place) {
    for (const old of at("list").querySelectorAll('[aria-selected="true"]')) {
      old.setAttribute("aria-selected", "false");
    }
    state.token = null;
    at("readout").textContent = KEYS;
    if (!state.order.length) {
      at("list").removeAttribute("aria-activedescendant");
      at("detail").replaceChildren(make("p", { text: "No rollout matches the filter." }));
      return;
    }
    state.place = Math.min(Math.max(place, 0), state.order.length - 1);
    const index = state.order[state.place];
    const chosen = at(`row-${index}`);
    chosen.setAttribute("aria-selected", "true");
    chosen.scrollIntoView({ block: "nearest" });
    at("list").setAttribute("aria-activedescendant", chosen.id);
    at("detail").replaceChildren(...detail(data.rows[index]));
    if (at("detail").getBoundingClientRect().top < 0) at("detail").scrollIntoView();
  }

  function detail(row) {
    const verdict = row.correct ? "right" : "wrong";
    const answer = make("p", {}, make("b", { text: verdict, class: verdict }), ": answered ");
    answer.append(row.answer === null ? "nothing readable" : foreign(row.answer));
    if (row.gold !== null) answer.append(", expected ", foreign(row.gold));
    if (!row.finished) answer.append("; cut off at the length limit");
    if (row.refused) answer.append("; critique refused: ", foreign(row.refused));
    const first = row.wrong.length ? `First wrong step: ${Math.min(...row.wrong)} of ${row.steps.length}, says the ${row.errors_by}.`
      : row.errors_by ? "No wrong step." : "The wrong steps are unknown.";
    const contexts = make("div", { class: "contexts" });
    for (const name of data.contexts) contexts.append(context(row, name));
    return [
      make("h2", {}, foreign(row.question)),
      answer,
      make("p", { class: "note", text: first }),
      make("details", {}, make("summary", { text: "Whole answer as plain text" }), foreign(row.attempt, "div", "message text")),
      contexts,
    ];
  }

  function context(row, name) {
    const box = make("section", { class: "context", "aria-label": name }, make("h3", { text: name }));
    const found = row.contexts[name];
    if (!found) {
      box.append(make("p", { class: "note", text: "No teacher for this rollout." }));
      return box;
    }
    const facts = make("dl", { class: "facts" });
    for (const [label, value, chance] of found.facts) {
      const shown = make("dd", { text: value });
      if (chance) shown.append(make("span", { text: ` by chance ${chance}` }));
      facts.append(make("div", {}, make("dt", { text: label }), shown));
    }
    const seen = make("details", {}, make("summary", { text: "What the teacher saw" }));
    for (const message of found.messages) {
      seen.append(make("div", { class: "message" }, make("b", { text: message.role }), foreign(message.content, "div")));
    }
    box.append(facts, seen, tokens(row, name, found.advantages));
    return box;
  }

  function tokens(row, name, advantages) {
    const stream = make("div", { class: "tokens", tabindex: "0", role: "group", dir: "ltr",
                                 "aria-label": `${row.tokens.length} tokens under ${name}; left and right arrows read them` });
    const starts = new Map();
    const wrong = new Set(row.wrong);
    const bad = new Uint8Array(row.tokens.length);
    row.steps.forEach(([start, end], i) => {
      starts.set(start, [...(starts.get(start) || []), i + 1]);
      if (wrong.has(i + 1)) bad.fill(1, start, end);
    });
    const first = row.wrong.length ? Math.min(...row.wrong) : null;
    const ends = new Set(row.steps.map(([, end]) => end));
    row.tokens.forEach((text, i) => {
      // A line a step, unless the text breaks there by itself.
      if (i > 0 && (starts.has(i) || ends.has(i)) && !row.tokens[i - 1].endsWith("\n")) stream.append(make("br"));
      for (const number of starts.get(i) || []) stream.append(mark(number, wrong.has(number), number === first));
      const value = advantages[i];
      const token = make("bdi", { class: value < 0 ? "t minus" : "t plus", "data-i": i });
      token.style.setProperty("--w", Math.min(1, Math.abs(value) / data.scale).toFixed(3));
      if (bad[i]) token.classList.add("in-wrong");
      if (row.special[i] !== undefined) { token.classList.add("special"); token.textContent = row.special[i]; }
      else { token.textContent = text; if (text === "") token.classList.add("part"); }
      if (text.includes("\n")) token.classList.add("newline");
      stream.append(token);
    });
    return stream;
  }

  function mark(number, wrong, first) {
    const text = first ? `\u2717 step ${number}: first error` : wrong ? `\u2717 step ${number}` : `step ${number}`;
    return make("span", { class: `step${wrong ? " wrong" : ""}${first ? " first" : ""}`, text });
  }

  function point(index) {
    const row = data.rows[state.order[state.place]];
    if (!row || !row.tokens.length) return;
    state.token = Math.min(Math.max(index, 0), row.tokens.length - 1);
    for (const old of document.querySelectorAll(".t.active")) old.classList.remove("active");
    for (const token of document.querySelectorAll(`.t[data-i="${state.token}"]`)) {
      token.classList.add("active");
    }
    const step = row.steps.findIndex(([start, end]) => start <= state.token && state.token < end) + 1;
    const said = data.contexts.filter((name) => row.contexts[name])
      .map((name) => `${name} ${signed(row.contexts[name].advantages[state.token])}`);
    const text = row.special[state.token] ?? JSON.stringify(row.tokens[state.token]);
    at("readout").replaceChildren(
      `token ${state.token + 1} of ${row.tokens.length} `, foreign(text, "bdi", ""),
      ` \u00b7 ${step ? `step ${step}${row.wrong.includes(step) ? ", wrong" : ""}` : "in no step"} \u00b7 ${said.join(" \u00b7 ")}`,
    );
  }

  function reveal() {
    const token = document.querySelector(".t.active");
    if (token) token.scrollIntoView({ block: "nearest" });
  }

  function firstError() {
    const row = data.rows[state.order[state.place]];
    if (row && row.wrong.length) { point(row.steps[Math.min(...row.wrong) - 1][0]); reveal(); }
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
    const move = {
      j: () => show(state.place + 1), ArrowDown: () => show(state.place + 1),
      k: () => show(state.place - 1), ArrowUp: () => show(state.place - 1),
      ArrowRight: () => { point(state.token === null ? 0 : state.token + 1); reveal(); },
      ArrowLeft: () => { point(state.token === null ? 0 : state.token - 1); reveal(); },
      e: firstError,
    }[event.key];
    const ends = event.target.id === "list" ? { Home: () => show(0), End: () => show(state.order.length - 1) }[event.key] : null;
    const chosen = move || ends;
    if (chosen) { event.preventDefault(); chosen(); }
  }

  function theme(choice) {
    at("theme").textContent = `Theme: ${choice}`;
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
  }

  function start() {
    at("headline").textContent = data.headline;
    at("low").textContent = `\u2212${data.scale}`;
    at("high").textContent = `+${data.scale}`;
    at("measures").append(
      make("tr", {}, make("td"), ...data.columns.map((name) => make("th", { scope: "col", text: name }))),
      ...data.table.map((line) => make("tr", {},
        make("th", { scope: "row", text: line.label }, make("small", { text: line.explanation })),
        ...line.cells.map((text) => make("td", { text })))),
    );
    at("by").append(...data.contexts.map((name) => make("option", { value: name, text: name })));
    at("by-label").hidden = data.contexts.length < 2;
    for (const id of ["sort", "by", "filter"]) at(id).addEventListener("change", arrange);
    at("list").addEventListener("click", (event) => {
      const found = event.target.closest("li");
      if (found) show(state.order.indexOf(Number(found.dataset.index)));
    });
    at("detail").addEventListener("mouseover", (event) => {
      const token = event.target.closest(".t");
      if (token) point(Number(token.dataset.i));
    });
    document.addEventListener("keydown", onKey);
    const choices = ["auto", "light", "dark"];
    at("theme").addEventListener("click", () => {
      const now = document.documentElement.dataset.theme || "auto";
      theme(choices[(choices.indexOf(now) + 1) % choices.length]);
    });
    arrange();
  }

  start();
})();
