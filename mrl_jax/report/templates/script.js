"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const tooltip = document.getElementById("tooltip");

  // Each picture is in the file once; its places get it here.
  for (const place of document.querySelectorAll("img[data-picture]")) {
    place.src = data.pictures[Number(place.dataset.picture)];
  }

  const narrow = window.matchMedia("(max-width: 700px)");  // legends are then below, in one column
  // Charts. Colours of the style sheet are read when a chart is drawn, so it is drawn again for another scheme.
  const coloured = (value, style) => {
    if (typeof value === "string") {
      return value.startsWith("var(--") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((v) => coloured(v, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([k, v]) => [
        k, k === "values" ? v : k === "columns" && narrow.matches ? 1 : coloured(v, style),
      ])
    );
  };
  const config = (style) => coloured({
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: {
      labelColor: "var(--muted)", titleColor: "var(--muted)", domainColor: "var(--line)", tickColor: "var(--line)",
      gridColor: "var(--line)", gridOpacity: 0.6, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500,
    },
    legend: {
      labelColor: "var(--ink)", titleColor: "var(--muted)", labelFontSize: 12, titleFontSize: 12,
      symbolBaseFillColor: "var(--muted)",
      ...(narrow.matches ? { orient: "bottom" } : {}),
      layout: { bottom: { direction: narrow.matches ? "vertical" : "horizontal" } },
    },
    mark: { color: "var(--c1)" }, rule: { color: "var(--c1)" }, point: { color: "var(--c1)" },
    text: { fill: null },
  }, style);

  const line = (name, value) => {
    const row = document.createElement("div");
    const label = document.createElement("span");
    label.textContent = name + ": ";
    row.append(label, String(value));
    return row;
  };
  const describe = (value) => {
    if (typeof value !== "object") return [document.createTextNode(String(value))];
    if (!("i" in value)) return Object.entries(value).map(([name, v]) => line(name, v));
    const item = data.items[value.i];
    const parts = [];
    if (item.p >= 0) {
      const picture = document.createElement("img");
      picture.src = data.pictures[item.p];
      picture.alt = "";
      parts.push(picture);
    }
    const name = document.createElement("b");
    name.textContent = item.n;
    parts.push(name);
    if (item.t && item.t !== item.n) parts.push(line("text", item.t));
    if (item.id !== item.n) parts.push(line("id", item.id));
    parts.push(line("modality", item.m), line("class", item.k));
    if (item.g) parts.push(line(item.g === item.k ? "given label" : "given label (wrong)", item.g));
    return parts;
  };
  const show = (_, event, __, value) => {
    if (value === null || value === undefined || value === "") {
      tooltip.hidden = true;
      return;
    }
    tooltip.replaceChildren(...describe(value));
    tooltip.hidden = false;
    const box = tooltip.getBoundingClientRect();
    const left = event.clientX + 14 + box.width > window.innerWidth ? event.clientX - box.width - 14 : event.clientX + 14;
    const top = event.clientY + 14 + box.height > window.innerHeight ? event.clientY - box.height - 14 : event.clientY + 14;
    tooltip.style.left = Math.max(4, left) + "px";
    tooltip.style.top = Math.max(4, top) + "px";
  };

  const draw = async () => {
    const style = getComputedStyle(document.documentElement);
    for (const place of document.querySelectorAll(".chart")) {
      const spec = coloured(data.charts[Number(place.dataset.chart)], style);
      place.view?.finalize();
      const drawn = await vegaEmbed(place, spec, { renderer: "svg", actions: false, config: config(style), tooltip: show });
      place.view = drawn.view;
    }
    document.documentElement.dataset.drawn = "yes";
  };
  draw();
  for (const query of [narrow, window.matchMedia("(prefers-color-scheme: dark)")]) query.addEventListener("change", draw);
  window.addEventListener("scroll", () => { tooltip.hidden = true; }, { passive: true });

  // Tables sort by a click on a heading, or Enter: numbers by size, the largest first, and texts by letter.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const rows = [...table.tBodies[0].rows];
      const isNumber = (row) => typeof key(row, column) === "number";
      const before = head.getAttribute("aria-sort");
      const first = rows.some(isNumber) ? "descending" : "ascending";
      const way = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
      const sign = way === "ascending" ? 1 : -1;
      rows.sort((a, b) => {
        const [x, y] = [key(a, column), key(b, column)];
        if (isNumber(a) !== isNumber(b)) return isNumber(a) ? -1 : 1;  // rows without a number come last
        return sign * (isNumber(a) ? x - y : x.localeCompare(y, undefined, { numeric: true }));
      });
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? way : "none"));
      table.tBodies[0].append(...rows);
    }));
  }

  // A filter shows the rows that have the chosen text in its column; several filters all have to agree.
  for (const filters of document.querySelectorAll(".filters")) {
    const rows = [...filters.parentElement.querySelector("table").tBodies[0].rows];
    const chosen = [...filters.querySelectorAll("select")];
    const text = (row, select) => row.cells[Number(select.dataset.column)].textContent.trim();
    for (const select of chosen) {
      const texts = [...new Set(rows.map((row) => text(row, select)))];
      texts.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
      select.append(...texts.map((t) => new Option(t, t)));
    }
    const apply = () => {
      for (const row of rows) row.hidden = chosen.some((s) => s.value !== "" && s.value !== text(row, s));
      const count = rows.filter((row) => !row.hidden).length;
      filters.querySelector("output").textContent = `${count} of ${rows.length} rows`;
    };
    for (const select of chosen) select.addEventListener("change", apply);
    apply();
  }

  // The table of contents marks the section in view.
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.getAttribute("href").slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main section")) seen.observe(section);
})();
