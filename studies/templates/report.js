"use strict";
(() => {
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const narrow = () => window.innerWidth < 600;
  const small = (box) => box.clientWidth < 440;
  const touch = matchMedia("(pointer: coarse)").matches;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const figures = new Map();
  const hovers = JSON.parse(document.getElementById("hovers")?.textContent ?? "{}");

  function themedAxis(axis) {
    return { ...axis, gridcolor: style("--line"), linecolor: style("--line"), zerolinecolor: style("--line") };
  }

  function themedTrace(original) {
    const trace = { ...original };  // White means the page's surface colour.
    const surface = (colour) => colour === "#ffffff" ? style("--surface") : colour;
    if (trace.textfont) {
      const halo = `0 0 3px ${style("--surface")}, 0 0 3px ${style("--surface")}`;
      trace.textfont = { ...trace.textfont, shadow: halo };
      if (dark.matches || trace.type === "heatmap") trace.textfont.color = style("--ink");
      if (trace.type !== "scatter") delete trace.textfont.shadow;
    }
    if (trace.marker) {
      const line = { ...trace.marker.line, color: surface(trace.marker.line?.color) };
      trace.marker = { ...trace.marker, line, color: surface(trace.marker.color) };
    }
    return trace;
  }

  function themed(figure, box) {
    const layout = { ...figure.layout };
    layout.font = { ...layout.font, color: style("--ink"), size: narrow() ? 11 : 12 };
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: style("--surface"), bordercolor: style("--muted"),
      font: { ...layout.hoverlabel.font, color: style("--ink") } };
    for (const key of Object.keys(layout)) if (/^[xy]axis/.test(key)) layout[key] = themedAxis(layout[key]);
    layout.annotations = layout.annotations?.map((note) => ({ ...note, bgcolor: style("--surface") }));
    if (layout.scene) {
      layout.scene = { ...layout.scene };
      if (narrow()) {  // Move the camera back, so that the axis titles fit; the colour bar goes below.
        const { x, y, z } = layout.scene.camera.eye;
        layout.scene.camera = { ...layout.scene.camera, eye: { x: 1.4 * x, y: 1.4 * y, z: 1.4 * z } };
        const bar = layout.coloraxis.colorbar;
        layout.coloraxis = { ...layout.coloraxis, colorbar: { ...bar, orientation: "h", len: 0.9, y: 0, yanchor: "top",
          title: { ...bar.title, side: "bottom" } } };
      }
      for (const key of ["xaxis", "yaxis", "zaxis"]) {
        layout.scene[key] = { ...themedAxis(layout.scene[key]), backgroundcolor: "rgba(0, 0, 0, 0)" };
      }
    }
    if (narrow() && figure.data[0]?.type === "heatmap") layout.xaxis.tickangle = -90;
    if (touch) layout.dragmode = false;
    const data = figure.data.map(themedTrace);
    if (box.classList.contains("pair")) {
      // The page has one legend for all these plots. Where names have no room beside their points,
      // each plot gets a legend of its own for them.
      const named = data.filter((trace) => trace.mode === "markers+text");
      layout.showlegend = small(box) && named.length > 0;
      layout.margin = { ...layout.margin, t: layout.showlegend ? 34 : 12 };
      if (layout.showlegend) for (const trace of data) trace.showlegend = named.includes(trace);
      if (layout.showlegend) for (const trace of named) trace.mode = "markers";
    }
    return [data, layout, { responsive: true, displayModeBar: false }];
  }

  function draw(box) {
    if (figures.has(box)) return;
    const figure = JSON.parse(box.querySelector("script").textContent);
    for (const trace of figure.data) if (trace.meta) trace.hovertext = trace.meta.map((name) => hovers[name]);
    box.replaceChildren();
    figures.set(box, figure);
    Plotly.newPlot(box, ...themed(figure, box));
    if (figure.layout.scene) addPickers(box);
  }

  const react = (box) => Plotly.react(box, ...themed(figures.get(box), box));
  const redraw = () => figures.forEach((_, box) => react(box));

  // A figure is drawn when it comes near the screen.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "600px" });
  const boxes = document.querySelectorAll(".plot");
  boxes.forEach((box) => watcher.observe(box));
  window.addEventListener("beforeprint", () => boxes.forEach(draw));
  dark.addEventListener("change", redraw);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {  // Labels, not only sizes, depend on the width.
    if (window.innerWidth !== width) redraw();
    width = window.innerWidth;
  });

  // The three axes and the colour of the view in space can be any of the objectives.
  function addPickers(box) {
    const figure = figures.get(box);
    const { axes, shown } = figure.layout.meta;
    ["x", "y", "z", "Colour"].forEach((place, slot) => {
      const label = document.createElement("label");
      const select = document.createElement("select");
      axes.forEach((axis, index) => select.add(new Option(axis.short, index, false, index === shown[slot])));
      select.addEventListener("change", () => { shown[slot] = Number(select.value); arrange(figure); react(box); });
      label.append(place, select);
      document.querySelector(`.pickers[data-plot="${box.id}"]`).append(label);
    });
  }

  function arrange(figure) {
    const { axes, shown } = figure.layout.meta;
    const column = (trace, slot) => trace.customdata.map((row) => row[shown[slot]]);
    for (const trace of figure.data) {
      [trace.x, trace.y, trace.z] = [0, 1, 2].map((slot) => column(trace, slot));
    }
    ["xaxis", "yaxis", "zaxis"].forEach((key, slot) => { figure.layout.scene[key] = { ...axes[shown[slot]] }; });
    const { type, tickvals, ticktext, short, reversed } = axes[shown[3]];
    const scaled = (values) => type === "log" ? values.map(Math.log10) : values;
    for (const trace of figure.data) if (trace.marker.coloraxis) trace.marker.color = scaled(column(trace, 3));
    const values = scaled(figure.data.flatMap((trace) => column(trace, 3)));
    const scale = figure.layout.coloraxis;
    [scale.cmin, scale.cmax] = [Math.min(...values), Math.max(...values)];
    scale.reversescale = reversed;
    Object.assign(scale.colorbar, { tickvals: tickvals && scaled(tickvals), ticktext });
    scale.colorbar.title.text = short;
  }

  // Colour points by one of several attributes: one choice for all plots of a row.
  document.querySelectorAll(".colours").forEach((row) => {
    const boxes = row.dataset.plots.split(" ").map((id) => document.getElementById(id));
    const labels = JSON.parse(row.querySelector("script").textContent);
    const select = row.querySelector("select");
    select.addEventListener("change", () => {
      const letters = labels[select.value];
      for (const box of boxes) {
        draw(box);
        const { data, layout } = figures.get(box);
        data.forEach((trace, index) => {
          const chosen = (_, point) => letters[point] === String(index);
          trace.name = (index ? "" : "not ") + select.value.replaceAll("_", " ");
          [trace.x, trace.y] = [layout.meta.x.filter(chosen), layout.meta.y.filter(chosen)];
        });
      }
      redraw();
    });
  });

  document.querySelectorAll("[data-sort]").forEach((head) => head.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    const key = (row) => {
      const cell = row.cells[head.cellIndex];
      const text = cell.dataset.value ?? cell.textContent.trim();
      return head.dataset.sort === "number" ? Number(text) : text;
    };
    const compare = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    const rows = [...body.rows].sort((a, b) => (up ? 1 : -1) * compare(key(a), key(b)));
    head.closest("table").querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...rows);
  }));

  document.querySelectorAll(".copy").forEach((button) => button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch {  // A page opened from disk may lack the clipboard: select the text instead.
      getSelection().selectAllChildren(text);
      document.execCommand("copy");
    }
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  }));
})();
