// Draws the charts of a page, sorts its tables, and gives its downloads. The tables are in the page already.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const dark = () => root.classList.contains("dark");

  // ---- one section: which lines are shown, its charts, and what reaches the recall that is asked for

  class Section {
    constructor(data, element) {
      this.data = data;
      this.element = element;
      this.views = [];
      this.hidden = new Set(); // methods
      this.measure = element.querySelector(".measure");
      this.target = element.querySelector(".target");
      this.selects = [...element.querySelectorAll("[data-facet]")];
      for (const select of this.selects) select.addEventListener("change", () => this.show());
      this.measure?.addEventListener("change", () => this.show());
      this.target?.addEventListener("input", () => this.show());
      for (const button of element.querySelectorAll("[data-method]")) {
        button.addEventListener("click", () => this.toggle(button));
      }
      this.startTarget();
      this.show();
    }

    // The slider starts where about half of the lines are above it.
    startTarget() {
      if (!this.target) return;
      const values = this.data.lines.map((line) => line[this.measure.value]).filter((v) => v != null)
        .sort((a, b) => a - b);
      if (values.length) this.target.value = Math.floor(100 * values[values.length >> 1]) / 100;
    }

    toggle(button) {
      const method = button.dataset.method;
      if (!this.hidden.delete(method)) this.hidden.add(method);
      button.setAttribute("aria-pressed", String(!this.hidden.has(method)));
      this.show();
    }

    // Lines that the selectors and the legend leave.
    lines() {
      const wanted = this.selects.filter((select) => select.value);
      return this.data.lines.filter((line) => !this.hidden.has(line.method)
        && wanted.every((select) => line.facets[select.dataset.facet] === select.value));
    }

    async draw() {
      for (const view of this.views) view.finalize();
      const divs = [...this.element.querySelectorAll(".chart")];
      const drawn = await Promise.all(this.data.charts.map((chart, at) => vegaEmbed(divs[at], chart.spec, {
        renderer: "svg", actions: false, config: look(), tooltip: { theme: "custom" }, logLevel: vega.Error,
      })));
      this.views = drawn.map((one) => one.view);
      await this.show();
    }

    async show() {
      const lines = this.lines(), shown = new Set(lines);
      for (const row of this.element.querySelectorAll(".lines tbody tr")) {
        row.hidden = !shown.has(this.data.lines[row.dataset.line]);
      }
      const name = this.measure?.value, target = Number(this.target?.value);
      if (this.target) {
        this.target.nextElementSibling.textContent = target.toFixed(2);
        this.reached(lines, name, target);
      }
      this.element.querySelectorAll("figcaption").forEach((caption, at) => {
        const y = this.measure ? this.measure.selectedOptions[0].textContent : "";
        caption.textContent = this.data.charts[at].title.replace("{y}", y);
      });
      await Promise.all(this.views.map((view, at) => {
        view.data("lines", lines);
        if (!this.data.charts[at].fixed) view.signal("measure", name).signal("target", target);
        return view.runAsync();
      }));
    }

    // The best line of each method for each cost among those that reach the recall.
    reached(lines, name, target) {
      const table = this.element.querySelector(".reached");
      const costs = this.data.costs.filter((cost) => lines.some((line) => line[cost.name] != null));
      const methods = [...new Set(lines.filter((line) => line[name] != null).map((line) => line.method))];
      const best = methods.map((method) => costs.map((cost) => pick(
        lines.filter((line) => line.method === method && line[name] >= target), cost)));
      const top = costs.map((cost, at) => pick(best.map((row) => row[at]).filter(Boolean), cost));
      const head = ["method", ...costs.map((cost) => cost.title)];
      table.replaceChildren(element("thead", element("tr", ...head.map((text, at) => {
        const cell = element("th", text);
        cell.className = at ? "n" : "";
        return cell;
      }))), element("tbody", ...methods.map((method, row) => {
        const first = element("th", method);
        first.scope = "row";
        return element("tr", first, ...costs.map((cost, at) => costCell(best[row][at], top[at], cost)));
      }).sort((a, b) => (b.querySelectorAll(".none").length === 0) - (a.querySelectorAll(".none").length === 0))));
    }
  }

  function pick(lines, cost) {
    const sign = cost.better === "lower" ? 1 : -1;
    const held = lines.filter((line) => line[cost.name] != null);
    return held.reduce((a, b) => (!a || sign * b[cost.name] < sign * a[cost.name] ? b : a), null);
  }

  function costCell(line, top, cost) {
    const cell = element("td", line ? line[`${cost.name} text`] : "–");
    cell.className = line ? "n" : "n none";
    if (!line) return cell;
    cell.title = line.detail;
    if (line === top || line[cost.name] === top[cost.name]) cell.className = "n best";
    else if (!apart(line, top, cost.name)) cell.prepend("≈ ");
    return cell;
  }

  // Newcombe's comparison of two intervals, as in annvq/benchmarks/statistics.py.
  function apart(a, b, name) {
    const [more, less] = a[name] > b[name] ? [a, b] : [b, a];
    const down = more[name] - (more[`${name} low`] ?? more[name]);
    const up = (less[`${name} high`] ?? less[name]) - less[name];
    return more[name] - less[name] > Math.hypot(down, up);
  }

  // ---- small things

  function element(name, ...children) {
    const made = document.createElement(name);
    made.append(...children);
    return made;
  }

  function look() {
    const style = getComputedStyle(root), colour = (name) => style.getPropertyValue(name).trim();
    return {
      background: "transparent", font: "system-ui, sans-serif",
      axis: {
        labelColor: colour("--faint"), titleColor: colour("--faint"), gridColor: colour("--line"),
        domainColor: colour("--line"), tickColor: colour("--line"), titleFontWeight: "normal", labelFontSize: 11,
      },
      rule: { color: colour("--fore") }, view: { stroke: null },
    };
  }

  function save(name, url) {
    const link = element("a");
    link.href = url;
    link.download = name;
    link.click();
  }

  function sort(table, th) {
    const at = [...th.parentNode.children].indexOf(th), up = th.getAttribute("aria-sort") !== "ascending";
    for (const other of th.parentNode.children) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.children[at];
      return cell?.dataset.v === undefined ? cell?.textContent ?? "" : Number(cell.dataset.v);
    };
    const missing = (value) => value === "–" || value === "";
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b); // last, either way
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }

  function remember(theme) {
    try { localStorage.setItem("annvq-theme", theme); } catch { /* pages that are opened as files may have no store */ }
  }

  function remembered() {
    try { return localStorage.getItem("annvq-theme"); } catch { return null; }
  }

  // ---- start

  const theme = remembered() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.classList.toggle("dark", theme === "dark");
  const sections = page.sections.map((data, at) => new Section(data, document.getElementById(`s${at}`)));
  const drawn = () => Promise.all(sections.map((section) => section.draw()));

  document.getElementById("theme").addEventListener("click", () => {
    root.classList.toggle("dark");
    remember(dark() ? "dark" : "light");
    drawn();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("copy")) {
      navigator.clipboard?.writeText(button.nextElementSibling.textContent);
      button.textContent = "copied";
    } else if (button.dataset.download) {
      save(button.dataset.download, `data:application/octet-stream;base64,${page.downloads[button.dataset.download]}`);
    } else if (button.dataset.save) {
      const section = sections.find((one) => one.element.contains(button));
      const at = [...section.element.querySelectorAll("figure")].indexOf(button.closest("figure"));
      section.views[at].toImageURL(button.dataset.save, 2).then((url) => save(`chart.${button.dataset.save}`, url));
    } else if (button.closest("thead")) {
      sort(button.closest("table"), button.closest("th"));
    }
  });
  drawn().then(() => { root.dataset.drawn = "yes"; });
})();
