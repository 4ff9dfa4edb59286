// The page's own part: filters, fronts and the table. Vega draws.
const { words, columns, verdicts, sets, fronts, histories, answers } = JSON.parse(document.getElementById("data").textContent);
const count = columns.kind.length;
const DRAWN = 1500, ROWS = 200;
const word = (name, i) => words[name][columns[name][i]];
const pick = Object.fromEntries(["kind", "device", "recipe", "model"].map((n) => [n, document.getElementById(n)]));
// Accuracies on different images are different questions: there is no "all" of them.
const images = document.getElementById("images");
// A set is images and a metric: [title of the axis, 1 if more is better or else -1, the metric].
Object.keys(sets).forEach((w) => images.add(new Option(w || "not said", w)));
const axes = new Set(Object.values(sets).map(([axis]) => axis));
if (axes.size === 1) document.getElementById("metric").textContent = [...axes][0];
images.addEventListener("change", draw);
for (const [name, select] of Object.entries(pick)) {
  select.add(new Option("all", ""));
  words[name].forEach((w) => w && select.add(new Option(w, w)));
  select.addEventListener("change", draw);
}
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
let shown = ROWS, chosen = [];
const views = {};

function wanted(names, newest) {
  const codes = names.filter((n) => pick[n].value).map((n) => [columns[n], words[n].indexOf(pick[n].value)]);
  const found = [];
  for (let i = 0; i < count; i++) {
    if (newest && !columns.newest[i]) continue;
    if (codes.every(([column, code]) => column[i] === code)) found.push(i);
  }
  return found;
}

function judged(i) {
  return columns.value[i] !== null && word("images", i) === images.value;
}

// Cheapest first, each more accurate than all cheaper ones. Of one cost the most accurate comes
// first, and those that tie with it follow, as mobiledeploy/analysis/pareto.py has it.
function front(rows) {
  const kept = [], sign = sets[images.value]?.[1] ?? 1;
  let best = null, cheaper = -Infinity;
  for (const row of [...rows].sort((a, b) => a.x - b.x || sign * (b.value - a.value)))
    if (best && row.x === best.x) {
      if (sign * row.value > cheaper && row.sha !== best.sha && isTie(gain(row, best))) kept.push(row);
    } else if (!best || sign * row.value > sign * best.value) {
      cheaper = best ? sign * best.value : cheaper;
      kept.push(best = row);
    }
  return kept;
}

function isTie(found) {
  return found !== null && found.low <= 0 && found.high >= 0;
}

// Tango's score statistic with half an image of correction, as mobiledeploy/analysis/gate.py has it.
const QUANTILE = 1.6448536269514722;
function tango(losses, gains, n, d) {
  const linear = (2 * n - losses + gains) * d - losses - gains;
  const root = Math.sqrt(Math.max(linear * linear + 8 * n * gains * d * (1 - d), 0));
  const spread = Math.sqrt(Math.max(n * (2 * Math.max((root - linear) / (4 * n), 0) + d * (1 - d)), 0));
  const above = losses - gains - n * d + 0.5;
  return spread > 0 ? above / spread : above === 0 ? 0 : Math.sign(above) * Infinity;
}

function upper(losses, gains, n) {
  let low = (losses - gains + 0.5) / n, high = 1 - 1e-12;
  if (low >= 1 || !(tango(losses, gains, n, high) + QUANTILE < 0)) return 1;
  for (let k = 0; k < 60; k++) {
    const middle = (low + high) / 2;
    if (tango(losses, gains, n, middle) + QUANTILE > 0) low = middle; else high = middle;
  }
  return low;
}

// By how much one artifact is better than another on the same images: points, and their bounds.
function gain(now, before) {
  const [a, b] = [answers[now.sha], answers[before.sha]];
  if (!a || !b || a[0] !== b[0] || a[1] !== b[1]) return null;
  const [mine, theirs] = [atob(a[2]), atob(b[2])];
  let gains = 0, losses = 0;
  for (let k = 0; k < a[1]; k++) {
    const bit = 7 - (k & 7), own = (mine.charCodeAt(k >> 3) >> bit) & 1, other = (theirs.charCodeAt(k >> 3) >> bit) & 1;
    gains += own & ~other; losses += other & ~own;
  }
  return { value: 100 * (gains - losses) / a[1], low: -100 * upper(losses, gains, a[1]), high: 100 * upper(gains, losses, a[1]) };
}

// Points of a front that the images do not tell from the cheaper one beside them, or from the best
// of the same cost, are ties.
function tied(along) {
  let first = null;
  return along.map((now) => {
    const other = first, same = other !== null && other.x === now.x;
    if (!same) first = now;
    const found = other && gain(now, other);
    if (!isTie(found)) return now;
    return { ...now, tie: found, beside: same ? "best of the same cost" : "cheaper one beside it",
      low: other.value + found.low, high: other.value + found.high };
  });
}

function point(i, x, device) {
  return { sha: word("artifact", i), model: word("model", i), recipe: word("recipe", i), format: word("format", i), device,
    x, shown: String(x), value: columns.value[i] };
}

function points(name, rows) {
  const plain = { size: "size", multadds: "multadds" }[name];
  if (!plain)
    return rows.filter((i) => word("kind", i) === name && columns.x[i] > 0 && judged(i))
      .map((i) => point(i, columns.x[i], word("device", i)));
  const once = new Map();
  for (const i of rows)
    if (columns[plain][i] > 0 && judged(i) && !once.has(columns.artifact[i]))
      once.set(columns.artifact[i], point(i, columns[plain][i], ""));
  return [...once.values()];
}

// Vega is never without data: it makes infinities of an empty scale.
async function show(name, spec, datasets) {
  if (views[name]?.spec !== spec) {
    const view = vegaEmbed(`#view-${name}`, { ...spec, datasets }, { actions: false, renderer: "svg" })
      .then((made) => made.view);
    views[name] = { spec, view };
    await view;
    return;
  }
  let made = await views[name].view;
  for (const [key, rows] of Object.entries(datasets)) made = made.data(key, rows);
  await made.resize().runAsync();
}

function caption(name, text) {
  document.querySelector(`#plot-${name} figcaption`).textContent = text;
}

function tieWords({ tie, beside }) {
  if (!tie) return "";
  const [value, low, high] = [tie.value, tie.low, tie.high].map((x) => (x < 0 ? "" : "+") + x.toFixed(1));
  return `, a tie with the ${beside}: ${value} points (${low} to ${high})`;
}

async function drawFront(name, rows) {
  const all = points(name, rows);
  const section = document.getElementById(`plot-${name}`);
  section.hidden = !all.length;
  if (!all.length) return;
  const best = [...new Set(all.map((p) => p.device))].flatMap((d) => tied(front(all.filter((p) => p.device === d))));
  const axis = sets[images.value][0], unit = axis.endsWith("(%)") ? " %" : "";
  const step = Math.max(1, Math.ceil(all.length / DRAWN));
  const some = step === 1 ? all : [...best, ...all.filter((_, k) => k % step === 0)];
  caption(name, `${all.length.toLocaleString("en")} points, ${best.length} on the front` +
    (step > 1 ? `; one in ${step} is drawn, and the whole front` : "") +
    (images.value && `, judged on ${images.value}`) +
    `. Best: ${best.slice(-3).map((p) => `${p.model} ${p.recipe}.${p.format}, ${p.value}${unit}${tieWords(p)}`).join("; ")}.`);
  const ties = best.filter((p) => p.tie);
  // Of no ties, one without length, which is not seen.
  if (!ties.length) ties.push({ ...best[0], low: best[0].value, high: best[0].value });
  await show(name, fronts[axis][name], { points: some, front: best.filter((p) => !p.tie), ties });
}

async function drawHistory(kind) {
  const name = `history-${kind}`;
  const section = document.getElementById(`plot-${name}`);
  const model = pick.model.value || words.model.find((w) => w) || "";
  const code = words.model.indexOf(model);
  const rows = wanted(["device", "recipe"], false)
    .filter((i) => word("kind", i) === kind && columns.model[i] === code && columns.x[i] !== null);
  section.hidden = rows.length < 2 || (pick.kind.value && pick.kind.value !== kind);
  if (section.hidden) return;
  const step = Math.ceil(rows.length / DRAWN);
  const said = new Map(verdicts.map(([when, sha, , outcome]) => [sha, outcome]).reverse());
  caption(name, `${model}: ${rows.length} figures over time` + (step > 1 ? `; one in ${step} is drawn` : ""));
  await show(name, histories[kind], { points: rows.filter((_, k) => k % step === 0).map((i) => ({
    when: columns.when[i] * 1000, y: columns.x[i], verdict: said.get(word("artifact", i)) ?? "not judged",
    series: `${word("recipe", i)}.${word("format", i)}, ${word("device", i)}, ${word("target", i)}`,
  })) });
}

function cell(text, number) {
  const made = document.createElement("td");
  made.textContent = text ?? "–";
  if (number) made.className = "n";
  return made;
}

function valueWords(i) {
  const value = columns.value[i];
  return value === null || axes.size === 1 ? value : `${sets[word("images", i)][2]} ${value}`;
}

function table() {
  const body = document.querySelector("#rows tbody");
  body.replaceChildren(...chosen.slice(0, shown).map((i) => {
    const row = document.createElement("tr");
    const counted = word("kind", i) === "counted";
    row.append(cell(word("model", i) || word("artifact", i)), cell(`${word("recipe", i)}.${word("format", i)}`),
      cell(word("kind", i) || "–"), cell(word("device", i) || "–"), cell(word("kind", i) ? word("target", i) : "–"),
      cell(counted ? null : columns.x[i], true),
      cell(columns.low[i] === null ? null : `${columns.low[i]} to ${columns.high[i]}`, true),
      cell(counted ? columns.x[i] : null, true), cell(valueWords(i), true), cell(word("images", i) || "–"), cell(columns.size[i], true),
      cell(new Date(columns.when[i] * 1000).toISOString().slice(0, 16).replace("T", " ")));
    return row;
  }));
  document.getElementById("more").hidden = shown >= chosen.length;
}

document.getElementById("more").addEventListener("click", () => { shown += ROWS; table(); });

async function draw() {
  chosen = wanted(["kind", "device", "recipe", "model"], true);
  shown = ROWS;
  document.getElementById("said").textContent =
    `${chosen.length.toLocaleString("en")} of ${count.toLocaleString("en")} figures: the newest of each target that fit`;
  table();
  const kinds = Object.keys(histories).filter((kind) => document.getElementById(`plot-${kind}`));
  for (const name of [...kinds, "size", "multadds"]) await drawFront(name, chosen);
  for (const kind of kinds) await drawHistory(kind);
  document.body.dataset.ready = String(chosen.length);
}
window.addEventListener("resize", async () => {
  for (const { view } of Object.values(views)) await (await view).resize().runAsync();
});
await draw();
