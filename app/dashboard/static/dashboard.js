// What the pages do in the browser: charts, local times, the theme, the picker. No page needs it.
"use strict";

(() => {
  const root = document.documentElement;
  const charts = new Map();

  // ---- theme: the system's until somebody chooses --------------------------------------------
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  const chooseTheme = (name) => {
    root.dataset.theme = name;
    const safe = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `tollgate_theme=${name}; Path=/dashboard; Max-Age=31536000; SameSite=Lax${safe}`;
    redraw();
  };

  // ---- figures --------------------------------------------------------------------------------
  const dollars = (value) => {
    if (value === 0) return "$0";
    const size = Math.abs(value);
    const places = { minimumFractionDigits: 2, maximumFractionDigits: size >= 1 ? 2 : 4 };
    const digits = size >= 0.01 ? places : { maximumSignificantDigits: 3 };
    return (value < 0 ? "-$" : "$") + size.toLocaleString("en-US", digits);
  };
  const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
  const whole = new Intl.NumberFormat("en-US");
  const duration = (value) => (value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`);
  const units = {
    usd: { axis: dollars, point: dollars },
    percent: { axis: (value) => `${value}%`, point: (value) => `${value}%` },
    ms: { axis: duration, point: duration },
  };
  const counts = { axis: (value) => short.format(value), point: (value) => whole.format(value) };

  // ---- charts ---------------------------------------------------------------------------------
  const probe = document.createElement("span");
  probe.hidden = true;
  const colour = (name) => {  // a custom property that the browser has resolved for the theme
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const faded = (resolved) => resolved.replace(/^rgb\(/, "rgba(").replace(/\)$/, ", .16)");

  const draw = (canvas) => {
    const block = document.getElementById(`${canvas.dataset.chart}-data`);
    if (!block || !window.Chart) return;
    charts.get(canvas)?.destroy();
    const { kind, labels, series, unit, stacked } = JSON.parse(block.textContent);
    const written = units[unit] || counts;
    const [text, line, panel] = ["--quiet", "--line", "--panel"].map(colour);
    const datasets = series.map((one, place) => {
      const own = colour(one.name === "other" ? "--series-9" : `--series-${(place % 8) + 1}`);
      const filled = kind === "bar" || stacked;
      return {
        label: one.name,
        data: one.values,
        borderColor: own,
        backgroundColor: kind === "bar" ? own : faded(own),
        borderWidth: kind === "bar" ? 0 : 2,
        borderDash: one.dashed ? [5, 4] : [],
        borderRadius: 2,
        fill: kind === "line" && filled,
        pointRadius: labels.length > 60 ? 0 : 2,
        tension: 0.25,
        spanGaps: true,
        maxBarThickness: 42,
      };
    });
    charts.set(canvas, new window.Chart(canvas, {
      type: kind,
      data: { labels, datasets },
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        scales: {
          x: { stacked, grid: { display: false }, border: { color: line }, ticks: { color: text, maxRotation: 0, autoSkipPadding: 16 } },
          y: { stacked, beginAtZero: true, grid: { color: line }, border: { display: false }, ticks: { color: text, maxTicksLimit: 6, callback: (value) => written.axis(value) } },
        },
        plugins: {
          legend: { display: series.length > 1, position: "bottom", align: "start", labels: { color: text, boxWidth: 10, boxHeight: 10 } },
          tooltip: {
            backgroundColor: panel, titleColor: text, bodyColor: colour("--text"), footerColor: colour("--text"), borderColor: line, borderWidth: 1,
            filter: (item) => item.parsed.y !== 0 || series.length === 1,
            callbacks: {
              label: (item) => ` ${item.dataset.label}: ${written.point(item.parsed.y)}`,
              footer: (items) =>
                stacked && items.length > 1 ? `Together: ${written.point(items.reduce((sum, item) => sum + item.parsed.y, 0))}` : "",
            },
          },
        },
      },
    }));
  };

  const redraw = () => {
    for (const canvas of [...charts.keys()]) {
      if (canvas.isConnected) draw(canvas);
      else { charts.get(canvas).destroy(); charts.delete(canvas); }
    }
  };

  // ---- local times ----------------------------------------------------------------------------
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const tellLocal = (part) => {
    for (const time of part.querySelectorAll("time[datetime]:not([data-local])")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.valueOf())) continue;
      time.dataset.local = "";
      time.title = [time.title, `${local.format(at)} where you are`].filter(Boolean).join(", ");
    }
  };

  // ---- whatever has just come onto the page ---------------------------------------------------
  const furnish = (part) => {
    for (const canvas of part.querySelectorAll("canvas[data-chart]")) if (!charts.has(canvas)) draw(canvas);
    tellLocal(part);
  };

  document.body.append(probe);
  document.querySelector(".menu [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  furnish(document);
  document.body.addEventListener("htmx:load", (event) => furnish(event.detail.elt));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-theme-toggle]")) chooseTheme(isDark() ? "light" : "dark");
    const open = document.querySelector(".picker-custom[open]");
    if (open && !open.contains(event.target)) open.open = false;
  });
  document.addEventListener("keydown", (event) => {
    const open = document.querySelector(".picker-custom[open]");
    if (event.key !== "Escape" || !open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });
  document.addEventListener("submit", (event) => {
    const asked = event.target.dataset.confirm;
    if (asked && !window.confirm(asked)) event.preventDefault();
  });
})();
