// The page's own part: the best file, filters, fronts, the table and histories. Vega draws.
const { words, columns, intervals, verdicts, sets, fronts, history, kinds, answers, shapes, shared, pages = {}, titled = false } =
  JSON.parse(document.getElementById("data").textContent);
const count = columns.kind.length;
const DRAWN = 1500, ROWS = 200, PLOTS = 12, TIES = 3;
const word = (name, i) => words[name][columns[name][i]];
const text = (id, content) => { document.getElementById(id).textContent = content; };
const pick = Object.fromEntries(["kind", "device", "recipe", "model"].map((n) => [n, document.getElementById(n)]));
// Accuracies on different images are different questions: there is no "all" of them.
const images = document.getElementById("images");
// A set is images and a metric: [title of the axis, 1 if more is better or else -1, the metric, the images, how many figures].
Object.keys(sets).forEach((w) => images.add(new Option(w || "not said", w)));
// At first that of most figures.
images.value = Object.keys(sets).reduce((a, b) => (sets[b][4] > sets[a][4] ? b : a), Object.keys(sets)[0] ?? "");
images.addEventListener("change", draw);
for (const [name, select] of Object.entries(pick)) {
  select.add(new Option("all", ""));
  words[name].forEach((w) => w && select.add(new Option(w, w)));
  select.addEventListener("change", () => { follow(); draw(); });
}
// A recipe has one colour and a format one shape in all plots, whatever else is in them.
for (const spec of Object.values(fronts).flatMap((specs) => Object.values(specs))) {
  const { color, shape } = spec.layer.at(-1).encoding;
  color.scale.domain = [...words.recipe].sort();
  shape.scale = { domain: [...words.format].sort() };
}
// Of several devices, a shape tells both; the first one has the shapes of the formats alone.
const manyDevices = {};
for (const kind of Object.keys(kinds)) {
  const rows = [...Array(count).keys()].filter((i) => word("kind", i) === kind);
  const devices = [...new Set(rows.map((i) => word("device", i)))].sort();
  manyDevices[kind] = devices.length > 1 && devices.length * words.format.length <= shapes;
  if (manyDevices[kind])
    for (const specs of Object.values(fronts)) {
      const { shape } = specs[kind].layer.at(-1).encoding;
      Object.assign(shape.legend, shared);
      shape.scale = { domain: devices.flatMap((device) => [...words.format].sort().map((format) => markOf(format, device))) };
    }
}
// A legend names what figures of its axis have: a detector's recipes do not stand beside a classifier's.
for (const [axis, specs] of Object.entries(fronts)) {
  const rows = [...Array(count).keys()].filter((i) => columns.value[i] !== null && sets[word("images", i)]?.[0] === axis);
  for (const [kind, { layer }] of Object.entries(specs)) {
    const { color, shape } = layer.at(-1).encoding;
    color.legend.values = [...new Set(rows.map((i) => word("recipe", i)))].sort();
    const marks = new Set((manyDevices[kind] ? rows.filter((i) => word("kind", i) === kind) : rows).map((i) => mark(i, kind)));
    shape.legend.values = shape.scale.domain.filter((name) => marks.has(name));
  }
}
for (const form of ["filters", "budget"])
  document.getElementById(form).addEventListener("submit", (event) => event.preventDefault());
let shown = ROWS, chosen = [];
const views = {};

function markOf(format, device) {
  return `${format}, ${device.replace(/^emulator:/, "")}`;
}

function mark(i, plot) {
  return manyDevices[plot] ? markOf(word("format", i), word("device", i)) : word("format", i);
}

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

// A file of other images than those that are chosen brings its own with it.
function follow() {
  const rows = wanted(Object.keys(pick), true).filter((i) => columns.value[i] !== null);
  if (rows.length && !rows.some(judged)) images.value = word("images", rows[0]);
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

// Two files of one name are told apart by the start of their sha256.
const fileOf = (i) => `${word("recipe", i)}.${word("format", i)}`;
const plainName = (i) => `${word("model", i) || word("artifact", i)} ${fileOf(i)}`;
const filesNamed = new Map(), hashes = new Set();
for (let i = 0; i < count; i++) {
  if (hashes.has(columns.artifact[i])) continue;
  hashes.add(columns.artifact[i]);
  filesNamed.set(plainName(i), (filesNamed.get(plainName(i)) ?? 0) + 1);
}
const hash = (i) => (filesNamed.get(plainName(i)) > 1 ? ` (${word("artifact", i).slice(0, 8)})` : "");
const named = (i) => plainName(i) + hash(i);

// The 95 % interval of the value; null where none is known.
const interval = (i) => intervals[columns.interval[i]];

function point(i, x, device, plot, [x_low, x_high] = [x, x]) {
  const value = columns.value[i], [value_low, value_high] = interval(i) ?? [value, value];
  return { sha: word("artifact", i), model: word("model", i), recipe: word("recipe", i), format: word("format", i), mark: mark(i, plot), device,
    x, x_low, x_high, value, value_low, value_high,
    shown: x_low < x_high ? `${fixed(x)} (${range([x_low, x_high], "")})` : fixed(x),
    judged: interval(i) ? `${value} (${range(interval(i), "", 3)})` : String(value) };
}

function timed(i) {
  return point(i, columns.x[i], word("device", i), word("kind", i), columns.low[i] === null ? undefined : [columns.low[i], columns.high[i]]);
}

function points(name, rows) {
  const plain = { size: "size", multadds: "multadds" }[name];
  if (!plain)
    return rows.filter((i) => word("kind", i) === name && columns.x[i] > 0 && judged(i))
      .map(timed);
  const once = new Map();
  for (const i of rows)
    if (columns[plain][i] > 0 && judged(i) && !once.has(columns.artifact[i]))
      once.set(columns.artifact[i], point(i, columns[plain][i], "", name));
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

function caption(name, content) {
  document.querySelector(`#plot-${name} figcaption`).textContent = content;
}

function tieWords({ tie, beside }) {
  if (!tie) return "";
  const [value, low, high] = [tie.value, tie.low, tie.high].map((x) => (x < 0 ? "" : "+") + x.toFixed(1));
  return `, a tie with the ${beside}: ${value} points (${low} to ${high})`;
}

// A part of the page that is to be drawn: where, and how. Null for a front without points.
function frontPart(name, rows) {
  const section = document.getElementById(`plot-${name}`);
  if (!section) return null;
  const all = points(name, rows);
  section.hidden = !all.length;
  if (!all.length) return null;
  const best = [...new Set(all.map((p) => p.device))].flatMap((d) => tied(front(all.filter((p) => p.device === d))));
  const several = new Set(all.map((p) => p.device)).size > 1;
  const axis = sets[images.value][0], unit = axis.endsWith("(%)") ? " %" : "";
  const step = Math.max(1, Math.ceil(all.length / DRAWN));
  const some = step === 1 ? all : [...best, ...all.filter((_, k) => k % step === 0)];
  caption(name, `${all.length.toLocaleString("en")} point${all.length === 1 ? "" : "s"}, ${best.length} on the front` +
    (step > 1 ? `; one in ${step} is drawn, and the whole front` : "") +
    (images.value && `, judged on ${images.value}`) +
    `. Best: ${best.slice(-3).map((p) => `${titled ? "" : `${p.model} `}${p.recipe}.${p.format}${several ? ` on ${p.device}` : ""}, ${p.value}${unit}${tieWords(p)}`).join("; ")}.` +
    (best.some((p) => p.value_low < p.value_high || p.x_low < p.x_high) ? " Lines through points are 95 % intervals" +
      (best.some((p) => p.tie) ? "; a dashed one is that of a tie." : ".") : ""));
  const ties = best.filter((p) => p.tie);
  // Of no ties, one without length, which is not seen.
  if (!ties.length) ties.push({ ...best[0], low: best[0].value, high: best[0].value });
  const datasets = { points: some, front: best.filter((p) => !p.tie), ties };
  return { place: section, draw: () => show(name, fronts[axis][name], datasets) };
}

// The least of 1, 2 and 5 times a power of ten that is not below `x`.
function round(x) {
  const power = 10 ** Math.floor(Math.log10(x));
  return Number((power * [1, 2, 5, 10].find((step) => step * power >= x * (1 - 1e-9))).toPrecision(1));
}

// What the sentence is about: judged files with one kind of figure on one device.
function candidates(rows) {
  const judgedRows = rows.filter(judged);
  const kind = Object.keys(kinds).find((k) => judgedRows.some((i) => word("kind", i) === k && columns.x[i] > 0));
  if (!kind) return { rows: judgedRows };
  const figures = judgedRows.filter((i) => word("kind", i) === kind && columns.x[i] > 0);
  const devices = new Map();
  figures.forEach((i) => devices.set(word("device", i), (devices.get(word("device", i)) ?? 0) + 1));
  const [device] = [...devices].reduce((a, b) => (b[1] > a[1] ? b : a));
  return { kind, device, rows: figures.filter((i) => word("device", i) === device) };
}

const within = document.getElementById("within");
let limited = "";
within.addEventListener("input", () => best(chosen));

// Four digits of a figure: its interval is no narrower. Zeros stay, so that figures of a column
// have their points below each other. The ends of an interval have the decimals of the lower one.
function fixed(x, digits = 4, like = x) {
  if (x === null) return null;
  const before = Math.floor(Math.log10(Math.abs(like) || 1)) + 1;
  return x.toFixed(Math.min(Math.max(digits - before, 0), 12));
}

function range([low, high], unit, digits = 4) {
  return `${fixed(low, digits)} to ${fixed(high, digits, low)}${unit}`;
}

function card(title, value, note) {
  const group = document.createElement("div");
  for (const [tag, content, name] of [["dt", title], ["dd", value, "big"], ["dd", note]]) {
    const part = document.createElement(tag);
    part.textContent = content;
    if (name) part.className = name;
    group.append(part);
  }
  return group;
}

// The most accurate file whose whole interval is within the limit, as mobiledeploy choose has it.
function best(all) {
  const { kind, device, rows } = candidates(all);
  const counted = kind === "counted", unit = counted ? " million instructions" : " ms";
  document.getElementById("budget").hidden = !kind;
  const files = new Set(rows.map((i) => word("artifact", i))).size;
  const of = files === 1 ? "one file" : `${files.toLocaleString("en")} files`;
  const cards = document.getElementById("cards");
  cards.replaceChildren();
  text("ties", "");
  if (!rows.length) {
    text("sentence", count ? "None of these files was evaluated on labelled images." : "There are no figures yet.");
    return null;
  }
  const sign = sets[images.value][1], target = `${kind} ${device}`;
  const cost = (i) => (kind ? columns.x[i] : columns.size[i] ?? Infinity);
  const most = (i) => columns.high[i] ?? columns.x[i];
  let fitting = rows, where = "";
  if (kind) {
    text("unit", unit.trim());
    if (limited !== target) {
      const costs = rows.map(most).sort((a, b) => a - b);
      // Half of the files are within it.
      within.value = round(costs[Math.floor((costs.length - 1) / 2)]);
      limited = target;
    }
    const limit = Number(within.value) || Infinity;
    fitting = rows.filter((i) => most(i) <= limit);
    where = `${limit === Infinity ? "Whatever it costs" : `Within ${limit}${unit}`}, ${kind} on ${device}, `;
    if (!fitting.length) {
      const least = rows.reduce((a, b) => (cost(b) < cost(a) ? b : a));
      text("sentence", `None of ${of} is within ${limit}${unit}, ${kind} on ${device}: ${named(least)} needs ${fixed(cost(least), 3)}${unit}.`);
      return null;
    }
  }
  const winner = fitting.reduce((a, b) => {
    const more = sign * (columns.value[b] - columns.value[a]);
    return more > 0 || (more === 0 && cost(b) < cost(a)) ? b : a;
  });
  const [axis, , metric, data] = sets[images.value], percent = axis.endsWith("(%)") ? " %" : "";
  const sentence = `${where}${named(winner)} is the most accurate of ${of}.`;
  text("sentence", sentence[0].toUpperCase() + sentence.slice(1));
  const bounds = interval(winner);
  cards.append(card(`${metric} on ${data || "its images"}`, `${fixed(columns.value[winner], 3)}${percent}`,
    bounds ? `95 % interval ${range(bounds, percent, 3)}` : "no interval is known"));
  if (kind)
    cards.append(card(`${counted ? "Instructions" : "Latency"}, ${kind}`, `${fixed(columns.x[winner], 3)}${counted ? " M" : unit}`,
      columns.low[winner] !== null ? `95 % interval ${range([columns.low[winner], columns.high[winner]], unit, 3)}; ${word("target", winner)}`
        : word("target", winner)));
  if (columns.size[winner] !== null)
    cards.append(card("Size of the file", `${fixed(columns.size[winner], 3)} MB`, fileOf(winner) + hash(winner)));
  const same = new Map();
  for (const i of fitting)
    if (word("artifact", i) !== word("artifact", winner) && isTie(gain({ sha: word("artifact", i) }, { sha: word("artifact", winner) })))
      same.set(word("artifact", i), columns.model[i] === columns.model[winner] ? fileOf(i) + hash(i) : named(i));
  const list = [...same.values()];
  if (list.length)
    text("ties", `A tie on these images: ${list.slice(0, TIES).join(", ")}` +
      (list.length > TIES ? `, and ${list.length - TIES} more.` : "."));
  return winner;
}

// A scale on which noise is small: a tenth of the figure at least, and all of its interval.
function scale(points) {
  const low = Math.min(...points.map((p) => p.low)), high = Math.max(...points.map((p) => p.high));
  const middle = (low + high) / 2, half = Math.max(0.1 * middle, 0.6 * (high - low));
  return [Math.max(0, middle - half), middle + half];
}

// The figures of each file of a model on each target, where there are several; the longest first.
function seriesOf(rows, code) {
  const series = new Map();
  for (const i of rows) {
    if (columns.model[i] !== code) continue;
    const name = `${fileOf(i)}, ${word("kind", i)} on ${word("device", i)}, ${word("target", i)}`;
    if (!series.has(name)) series.set(name, []);
    series.get(name).push(i);
  }
  return [...series].filter(([, list]) => list.length > 1).sort((a, b) => b[1].length - a[1].length);
}

let drawnHistories = [];
function historyParts(first) {
  let model = pick.model.value || (first === null ? words.model.find((w) => w) : word("model", first)) || "";
  const rows = wanted(["kind", "device", "recipe"], false).filter((i) => columns.x[i] !== null);
  let several = seriesOf(rows, words.model.indexOf(model));
  if (!several.length && !pick.model.value) {
    // The best file is new: the model of most figures has a history instead.
    const counts = words.model.map((_, code) => rows.filter((i) => columns.model[i] === code).length);
    model = words.model[counts.indexOf(Math.max(...counts))] ?? model;
    several = seriesOf(rows, words.model.indexOf(model));
  }
  document.getElementById("history").hidden = !several.length;
  drawnHistories.forEach((view) => view.finalize());
  drawnHistories = [];
  const place = document.getElementById("histories");
  place.replaceChildren();
  const parts = [];
  if (!several.length) return parts;
  const sooner = new Map(verdicts.map(([, sha, , outcome]) => [sha, outcome]).reverse());
  text("history-note", `Of ${model}. A green circle passed its gate, an orange diamond is inconclusive, a red cross failed; grey was not judged.` +
    (several.length > PLOTS ? ` The ${PLOTS} longest of ${several.length} series.` : ""));
  for (const [name, list] of several.slice(0, PLOTS)) {
    const [, title] = kinds[word("kind", list[0])], step = Math.ceil(list.length / (DRAWN / PLOTS));
    const points = list.filter((_, k) => k % step === 0).map((i) => ({
      when: columns.when[i] * 1000, y: columns.x[i], low: columns.low[i] ?? columns.x[i], high: columns.high[i] ?? columns.x[i],
      date: new Date(columns.when[i] * 1000).toISOString().slice(0, 16).replace("T", " "),
      verdict: sooner.get(word("artifact", i)) ?? "not judged" }));
    const figure = document.createElement("figure"), heading = document.createElement("h3"), view = document.createElement("div");
    const note = document.createElement("figcaption");
    heading.textContent = name;
    view.className = "view";
    note.textContent = `${title}, ${list.length} figures`;
    figure.setAttribute("aria-label", `${name}: ${title} over time`);
    figure.append(heading, view, note);
    place.append(figure);
    const { x, y } = history.encoding, times = points.map((p) => p.when);
    const span = Math.max(...times) - Math.min(...times);
    const format = span > 4 * 86400e3 ? "%b %-d" : span > 1200e3 ? "%b %-d %H:%M" : "%H:%M:%S";
    const spec = { ...history, datasets: { points }, encoding: { x: { ...x, axis: { ...x.axis, format } },
      y: { ...y, scale: { ...y.scale, domain: scale(points) } } } };
    parts.push({ place: figure, draw: async () => {
      drawnHistories.push((await vegaEmbed(view, spec, { actions: false, renderer: "svg" })).view);
    } });
  }
  return parts;
}

// `titled`: the page is that of one model, and its title names it.
// What all rows share stands above the table, what no row has is left out.
const COLUMNS = [
  { head: "file", of: (i) => (titled ? fileOf(i) + hash(i) : word("model", i) || word("artifact", i)),
    note: (i) => (titled ? null : fileOf(i) + hash(i)), name: "name",
    href: (i) => pages[word("model", i)] },
  { head: () => sets[images.value]?.[0] ?? "metric", of: (i) => fixed(columns.value[i], 3), note: (i) => interval(i) && range(interval(i), "", 3), name: "n" },
  { head: "latency (ms)", of: (i) => (word("kind", i) === "counted" ? null : fixed(columns.x[i])),
    note: (i) => columns.low[i] !== null && range([columns.low[i], columns.high[i]], ""), name: "n" },
  { head: "instructions (millions)", of: (i) => (word("kind", i) === "counted" ? fixed(columns.x[i]) : null), name: "n" },
  { head: "size (MB)", of: (i) => fixed(columns.size[i]), name: "n" },
  { head: "mult-adds (millions)", of: (i) => fixed(columns.multadds[i]), name: "n" },
  { head: "date (UTC)", of: (i) => new Date(columns.when[i] * 1000).toISOString().slice(0, 10),
    note: (i) => new Date(columns.when[i] * 1000).toISOString().slice(11, 16) },
  { head: "kind", of: (i) => word("kind", i) || null, shared: true },
  { head: "device", of: (i) => word("device", i) || null, shared: true, name: "words" },
  { head: "target", of: (i) => (word("kind", i) ? word("target", i) : null), shared: true, name: "words" },
  { head: "judged on", of: (i) => word("images", i) || null, shared: true, name: "words" },
];

// A long name may go on in the next line after these signs.
function breakable(value) {
  return String(value).split(/(?<=[_/])(?=\w)|(?<=\.)(?=[a-z])/i).flatMap((part, k) => (k ? [document.createElement("wbr"), part] : [part]));
}

// A narrow head breaks between its words, and not within "Top-1".
function wholeWords(text) {
  return text.split(" ").flatMap((part, k) => {
    const whole = document.createElement("span");
    whole.textContent = part;
    return k ? [" ", whole] : [whole];
  });
}

function cell(column, i) {
  const data = document.createElement("td"), value = column.of(i) ?? "–", note = column.note?.(i), href = column.href?.(i);
  if (href) {
    const link = document.createElement("a");
    link.href = href;
    link.append(...breakable(value));
    data.append(link);
  } else data.append(...breakable(value));
  if (note) {
    const small = document.createElement("small");
    small.textContent = note;
    data.append(small);
  }
  if (column.name) data.className = column.name;
  return data;
}

function table() {
  const used = [], same = [];
  for (const column of COLUMNS) {
    const first = chosen.length ? column.of(chosen[0]) : null;
    if (column.shared && first !== null && chosen.length > 1 && chosen.every((i) => column.of(i) === first)) same.push(`${column.head} ${first}`);
    else if (chosen.some((i) => column.of(i) !== null)) used.push(column);
  }
  document.querySelector("#rows caption span").textContent = "Newest first" + (same.length ? `. In every row: ${same.join("; ")}` : "");
  document.querySelector("#rows thead tr").replaceChildren(...used.map(({ head, name }) => {
    const heading = document.createElement("th");
    heading.scope = "col";
    heading.append(...wholeWords(typeof head === "string" ? head : head()));
    if (name === "n") heading.className = name;
    return heading;
  }));
  document.querySelector("#rows tbody").replaceChildren(...chosen.slice(0, shown).map((i) => {
    const row = document.createElement("tr");
    row.append(...used.map((column) => cell(column, i)));
    return row;
  }));
  document.getElementById("more").hidden = shown >= chosen.length;
}

document.getElementById("more").addEventListener("click", () => { shown += ROWS; table(); });

function onScreen({ place }) {
  const { top, bottom } = place.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}

// What is on the screen is drawn first, the mark `shown` says when; the rest follows part by part.
let draws = 0;
async function draw() {
  const own = ++draws;
  chosen = wanted(Object.keys(pick), true).filter((i) => columns.value[i] === null || judged(i));
  shown = ROWS;
  text("said", `${chosen.length.toLocaleString("en")} of ${count.toLocaleString("en")} figures: the newest of each target that fit`);
  const first = best(chosen);
  table();
  const parts = [...Object.keys(kinds), "size", "multadds"].map((name) => frontPart(name, chosen)).filter((part) => part);
  parts.push(...historyParts(first));
  while (parts.length) {
    const place = parts.findIndex(onScreen);
    if (place < 0) {
      performance.mark("shown");
      // The browser may paint, and answer its reader.
      await new Promise((done) => setTimeout(done));
    }
    // Other filters were chosen in the meantime.
    if (own !== draws) return;
    await parts.splice(Math.max(place, 0), 1)[0].draw();
  }
  performance.mark("shown");
  document.body.dataset.ready = String(chosen.length);
}
window.addEventListener("resize", async () => {
  for (const { view } of Object.values(views)) await (await view).resize().runAsync();
  for (const view of drawnHistories) await view.resize().runAsync();
});
draw();
