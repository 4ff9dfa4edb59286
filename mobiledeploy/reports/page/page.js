// The page's own part: filters, fronts and the table. Vega draws.
const { words, columns, verdicts, specs } = JSON.parse(document.getElementById("data").textContent);
const count = columns.kind.length;
const DRAWN = 1500, ROWS = 200;
const word = (name, i) => words[name][columns[name][i]];
const pick = Object.fromEntries(["kind", "device", "recipe", "model"].map((n) => [n, document.getElementById(n)]));
// Accuracies on different pictures are different questions: there is no "all" of them.
const pictures = document.getElementById("pictures");
const sets = new Set(columns.pictures.filter((_, i) => columns.top1[i] !== null).map((code) => words.pictures[code]));
sets.forEach((w) => pictures.add(new Option(w || "not said", w)));
pictures.addEventListener("change", draw);
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
  return columns.top1[i] !== null && word("pictures", i) === pictures.value;
}

// Cheapest first, each more accurate than all before it.
function front(rows) {
  const kept = [];
  for (const row of [...rows].sort((a, b) => a.x - b.x || b.top1 - a.top1))
    if (!kept.length || row.top1 > kept.at(-1).top1) kept.push(row);
  return kept;
}

function point(i, x, device) {
  return { model: word("model", i), recipe: word("recipe", i), format: word("format", i), device,
    x, shown: String(x), top1: columns.top1[i] };
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
async function show(name, datasets) {
  if (!views[name]) {
    views[name] = vegaEmbed(`#view-${name}`, { ...specs[name], datasets }, { actions: false, renderer: "svg" })
      .then((made) => made.view);
    await views[name];
    return;
  }
  let made = await views[name];
  for (const [key, rows] of Object.entries(datasets)) made = made.data(key, rows);
  await made.resize().runAsync();
}

function caption(name, text) {
  document.querySelector(`#plot-${name} figcaption`).textContent = text;
}

async function drawFront(name, rows) {
  const all = points(name, rows);
  const section = document.getElementById(`plot-${name}`);
  section.hidden = !all.length;
  if (!all.length) return;
  const best = [...new Set(all.map((p) => p.device))].flatMap((d) => front(all.filter((p) => p.device === d)));
  const step = Math.max(1, Math.ceil(all.length / DRAWN));
  const some = step === 1 ? all : [...best, ...all.filter((_, k) => k % step === 0)];
  caption(name, `${all.length.toLocaleString("en")} points, ${best.length} on the front` +
    (step > 1 ? `; one in ${step} is drawn, and the whole front` : "") +
    (pictures.value && `, judged on ${pictures.value}`) +
    `. Best: ${best.slice(-3).map((p) => `${p.model} ${p.recipe}, ${p.top1} %`).join("; ")}.`);
  await show(name, { points: some, front: best });
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
  await show(name, { points: rows.filter((_, k) => k % step === 0).map((i) => ({
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

function table() {
  const body = document.querySelector("#rows tbody");
  body.replaceChildren(...chosen.slice(0, shown).map((i) => {
    const row = document.createElement("tr");
    const counted = word("kind", i) === "counted";
    row.append(cell(word("model", i) || word("artifact", i)), cell(`${word("recipe", i)}.${word("format", i)}`),
      cell(word("kind", i) || "–"), cell(word("device", i) || "–"), cell(word("kind", i) ? word("target", i) : "–"),
      cell(counted ? null : columns.x[i], true),
      cell(columns.low[i] === null ? null : `${columns.low[i]} to ${columns.high[i]}`, true),
      cell(counted ? columns.x[i] : null, true), cell(columns.top1[i], true), cell(word("pictures", i) || "–"), cell(columns.size[i], true),
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
  for (const name of Object.keys(specs))
    if (document.getElementById(`plot-${name}`))
      await (name.startsWith("history-") ? drawHistory(name.slice(8)) : drawFront(name, chosen));
  document.body.dataset.ready = String(chosen.length);
}
window.addEventListener("resize", async () => {
  for (const made of Object.values(views)) await (await made).resize().runAsync();
});
await draw();
