"use strict";
// Tables that sort and filter, and the runs behind each number. Without it all tables and figures still stand.
(() => {
  const LIMIT = 200; // rows shown at first
  const LONG = 8; // rows from which a table can be filtered
  const CHOICES = 8; // values up to which a column can be chosen from
  const WORDS = 40; // letters of the longest of them
  const { runs } = JSON.parse(document.getElementById("data").textContent);
  const place = new Map(runs.map((run, index) => [run.id, index]));

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // --- tables ---------------------------------------------------------------------------------------------------------

  /** Rows below a heading of their own (or none): `rows` are sorted, `fixed` stays on top, the model before training. */
  function groupsOf(body) {
    const groups = [{ head: null, fixed: [], rows: [] }];
    for (const row of body.rows) {
      if (row.className === "group") groups.push({ head: row, fixed: [], rows: [] });
      else groups.at(-1).rows.push(row);
    }
    for (const group of groups) {
      if (group.rows[0]?.className === "before" && group.rows[1]?.className !== "before") group.fixed = group.rows.splice(0, 1);
    }
    return groups;
  }

  function keyOf(row, column) {
    const cell = row.cells[column];
    if (!cell.classList.contains("n")) return cell.textContent.trim();
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
  }

  function compare(one, two) {
    return typeof one === "string" ? one.localeCompare(two, "en", { numeric: true }) : one - two;
  }

  function sorted(rows, { column, direction }) {
    if (!direction) return rows;
    const keyed = rows.map((row) => [keyOf(row, column), row]);
    const known = keyed.filter(([key]) => key !== null && key !== "–" && key !== "");
    const unknown = keyed.filter((entry) => !known.includes(entry));
    known.sort(([one], [two]) => (direction === "ascending" ? 1 : -1) * compare(one, two));
    return [...known, ...unknown].map(([, row]) => row); // what is not known comes last either way
  }

  function equip(table) {
    const [body] = table.tBodies;
    const heads = [...table.tHead.rows[0].cells];
    const groups = groupsOf(body);
    const all = groups.flatMap((group) => [...group.fixed, ...group.rows]);
    const text = new Map(all.map((row) => [row, row.textContent.toLowerCase()]));
    const order = { column: -1, direction: "" };
    const chosen = new Map();
    let words = [];
    let limit = LIMIT;

    const count = make("span");
    count.setAttribute("role", "status");
    const more = make("button", { type: "button", className: "button", textContent: `Show all ${all.length} rows` });
    more.addEventListener("click", () => { limit = Infinity; update(); count.scrollIntoView({ block: "nearest" }); });

    function matches(row) {
      return words.every((word) => text.get(row).includes(word))
        && [...chosen].every(([column, value]) => !value || row.cells[column].textContent.trim() === value);
    }

    function update() {
      let found = 0;
      let shown = 0;
      const rows = [];
      for (const group of groups) {
        const before = found;
        for (const row of [...group.fixed, ...sorted(group.rows, order)]) {
          const fits = matches(row);
          row.hidden = !fits || found >= limit;
          found += fits;
          shown += !row.hidden;
          rows.push(row);
        }
        if (group.head) {
          group.head.hidden = found === before;
          rows.splice(rows.length - group.fixed.length - group.rows.length, 0, group.head);
        }
      }
      body.append(...rows);
      count.textContent = shown < all.length ? `${shown} of ${all.length} rows` : `${all.length} rows`;
      more.hidden = found <= limit;
    }

    heads.forEach((head, column) => {
      const first = head.dataset.first ?? "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const button = make("button", { type: "button", title: "Sort" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const was = order.column === column ? order.direction : "";
        order.direction = { "": first, [first]: second, [second]: "" }[was];
        order.column = column;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (order.direction) head.setAttribute("aria-sort", order.direction);
        update();
      });
    });

    if (all.length > LONG) {
      const title = document.getElementById(table.getAttribute("aria-labelledby")).textContent;
      const search = make("input", { type: "search", placeholder: "Filter" });
      search.setAttribute("aria-label", `Filter: ${title}`);
      search.addEventListener("input", () => { words = search.value.toLowerCase().split(/\s+/).filter(Boolean); update(); });
      const selects = heads.flatMap((head, column) => selectFor(head, column, groups.flatMap((group) => group.rows), chosen, update));
      table.closest(".scroll").before(make("div", { className: "controls" }, search, ...selects, count, more));
    }
    update();
  }

  /** A choice among the values of a text column that has few; nothing for others. */
  function selectFor(head, column, rows, chosen, update) {
    if (head.classList.contains("n")) return [];
    const values = [...new Set(rows.map((row) => row.cells[column].textContent.trim()))].sort(compare);
    const few = values.length > 1 && values.length <= Math.min(CHOICES, rows.length / 2);
    if (!few || values.some((value) => value.length > WORDS)) return [];
    const select = make("select", {}, new Option("all", ""), ...values.map((value) => new Option(value)));
    select.addEventListener("change", () => { chosen.set(column, select.value); update(); });
    return [make("label", {}, `${head.textContent.trim()} `, select)];
  }

  document.querySelectorAll("table.data").forEach(equip);

  // --- runs -----------------------------------------------------------------------------------------------------------

  const dialog = document.getElementById("detail");
  const title = document.getElementById("detail-title");
  const content = document.getElementById("detail-content");
  const back = document.getElementById("detail-back");
  let list = ""; // the hash of the list from which a run was opened

  function pairs(name, values) {
    const entries = Object.entries(values);
    if (!entries.length) return [];
    const rows = entries.flatMap(([key, value]) => [make("dt", { textContent: key }), make("dd", { textContent: value })]);
    return [make("div", {}, make("h3", { textContent: name }), make("dl", {}, ...rows))];
  }

  function link(text, href) {
    return make("a", { textContent: text, href });
  }

  /** `0-2,5` as runs; what is no run is left out. */
  function runsOf(ranges) {
    return ranges.split(",").flatMap((range) => {
      const [first, last = first] = range.split("-").map(Number);
      return runs.slice(first, last + 1);
    });
  }

  function showList(found) {
    title.textContent = found.length === 1 ? "1 run" : `${found.length} runs`;
    const columns = [...new Set(found.flatMap((run) => Object.keys(run.numbers)))];
    const rows = found.map((run) => make("tr", {},
      make("th", { scope: "row" }, link(run.id, `#run=${run.id}`)),
      make("td", { textContent: run.outcome }),
      ...columns.map((name) => make("td", { className: "n", textContent: run.numbers[name] ?? "–" }))));
    const head = ["run", "outcome", ...columns].map((name, index) =>
      make("th", { scope: "col", className: index > 1 ? "n" : "", textContent: name }));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
    table.setAttribute("aria-labelledby", "detail-title");
    const box = make("div", { className: "scroll", tabIndex: 0 }, table);
    box.setAttribute("role", "region");
    box.setAttribute("aria-labelledby", "detail-title");
    content.replaceChildren(box);
  }

  function showRun(run) {
    title.textContent = run.id;
    const result = pairs("Result", { outcome: run.outcome, ...run.numbers });
    const parts = run.remark ? [make("p", { textContent: run.remark })] : [];
    parts.push(make("div", { className: "columns" },
      make("div", {}, ...pairs("Settings", run.axes), ...pairs("Where it ran", run.origin)), ...result));
    if (run.curve) parts.push(make("h3", { textContent: "Training loss" }), curveOf(run.curve));
    if (run.command) parts.push(...commandOf(run.command));
    const links = Object.entries(run.links).map(([name, path]) => make("li", {}, link(name, path)));
    if (links.length) parts.push(make("h3", { textContent: "Files" }), make("ul", { className: "list" }, ...links));
    const pictures = run.pictures.map((path) => make("a", { href: path }, pictureOf(path, run.id)));
    if (pictures.length) parts.push(make("h3", { textContent: "Pictures" }), make("div", { className: "pictures" }, ...pictures));
    content.replaceChildren(...parts);
  }

  function pictureOf(path, id) {
    const name = decodeURIComponent(path.split("/").at(-1)).replace(/\.png$/, "");
    const image = make("img", { loading: "lazy", alt: `${name}, ${id}` });
    image.src = path; // after `loading`, which decides when it is read
    return image;
  }

  function commandOf(command) {
    const text = make("pre", { className: "wrap" }, make("code", { textContent: command }));
    const said = make("span");
    said.setAttribute("role", "status");
    const copy = make("button", { type: "button", className: "button", textContent: "Copy" });
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(command);
        said.textContent = "copied";
      } catch { // where the browser forbids it, the reader's own copy is a key away
        getSelection().selectAllChildren(text);
        said.textContent = "selected";
      }
    });
    return [make("h3", { textContent: "Repeat this run" }), text, make("p", {}, copy, " ", said)];
  }

  // --- the loss curve -------------------------------------------------------------------------------------------------

  function draw(tag, attributes, text = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    element.textContent = text;
    return element;
  }

  /** About `count` round numbers from `low` to `high`. */
  function ticks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    return Array.from({ length: Math.floor(high / step) - Math.ceil(low / step) + 1 }, (_, i) => (Math.ceil(low / step) + i) * step);
  }

  function curveOf({ step, loss }) {
    const points = step.map((x, index) => [x, loss[index]]).filter(([, y]) => y !== null);
    const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
    const svg = draw("svg", { viewBox: "0 0 680 260", class: "curve", role: "img" });
    svg.setAttribute("aria-label", points.length
      ? `Training loss from ${ys[0]} at step ${xs[0]} to ${ys.at(-1)} at step ${xs.at(-1)}` : "Training loss: no finite value");
    if (!points.length) return svg;
    const [left, right] = [Math.min(...xs), Math.max(...xs, Math.min(...xs) + 1)];
    const [low, high] = [Math.min(...ys), Math.max(...ys)];
    const spread = high - low || Math.abs(high) || 1;
    const [bottom, top] = [low - spread * 0.04, high + spread * 0.04];
    const x = (value) => 70 + (590 * (value - left)) / (right - left);
    const y = (value) => 214 - (204 * (value - bottom)) / (top - bottom);
    for (const value of ticks(bottom, top, 4)) {
      svg.append(draw("line", { x1: 70, x2: 660, y1: y(value), y2: y(value) }));
      svg.append(draw("text", { x: 62, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(3)).toString()));
    }
    for (const value of ticks(left, right, 6)) {
      svg.append(draw("text", { x: x(value), y: 232, "text-anchor": "middle" }, Number(value.toPrecision(6)).toString()));
    }
    svg.append(draw("path", { d: points.map(([a, b], index) => `${index ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("") }));
    svg.append(draw("text", { x: 365, y: 254, "text-anchor": "middle" }, "step"));
    svg.append(draw("text", { x: 14, y: 112, "text-anchor": "middle", transform: "rotate(-90 14 112)" }, "loss"));
    return svg;
  }

  // --- the address says what is open ----------------------------------------------------------------------------------

  function route() {
    const [, kind, value] = location.hash.match(/^#(runs?)=(.*)$/) ?? [];
    const found = kind === "run" ? runs.slice(place.get(value) ?? runs.length).slice(0, 1) : kind ? runsOf(value) : [];
    if (!found.length) return dialog.open && dialog.close();
    if (kind === "runs") { list = location.hash; showList(found); } else showRun(found[0]);
    back.hidden = kind === "runs" || !list;
    back.href = list;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    return title.focus();
  }

  dialog.addEventListener("close", () => {
    list = "";
    if (/^#runs?=/.test(location.hash)) history.pushState(null, "", "#"); // an empty one would scroll to the top
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  addEventListener("hashchange", route);
  addEventListener("popstate", route);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((element) => { element.open = true; }));
  route();
})();
