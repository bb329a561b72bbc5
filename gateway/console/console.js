/* The console: the public API and its stream, nothing else. Text is only ever set as text. */

import { draw } from "/console/chart.js";
import { follow } from "/console/stream.js";

const API = "/api/v1";
const ROWS_MAX = 250;
const POINTS_MAX = 600;
const find = (id) => document.getElementById(id);

const desk = {
  key: sessionStorage.getItem("repricer-key") || "",
  retailer: sessionStorage.getItem("repricer-retailer") || "",
  prices: new Map(), // "sku\u001fchannel" -> recommendation, as the stream tells it
  facts: new Map(), // sku -> title and category
  moved: new Map(), // the same key -> when it moved last, and from what
  moves: [], // moments of price moves, for the figure
  chosen: "",
  points: [],
  rows: new Map(),
  dirty: true,
  changed: new Set(),
  stream: null,
};

class Refused extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || "The request failed");
    this.problem = problem;
  }
}

async function call(path, { method = "GET", body } = {}) {
  const url = new URL(API + path, location.href);
  if (desk.retailer && !path.startsWith("/retailers")) url.searchParams.set("retailer", desk.retailer);
  const headers = { Authorization: `Bearer ${desk.key}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const document_ = await answer.json();
  if (!answer.ok) throw new Refused(document_);
  return document_;
}

const text = (money) => (money === null || money === undefined ? "–" : `${money.amount}`);
const number = (money) => (money === null || money === undefined ? null : Number(money.amount));
const same = (one, other) => (one && one.amount) === (other && other.amount);
const placeOf = (price) => `${price.sku}\u001f${price.channel}`;

/* ----- the door ------------------------------------------------------------------------------- */

find("door").addEventListener("submit", (event) => {
  event.preventDefault();
  desk.key = find("key").value.trim();
  open_();
});

find("forget").addEventListener("click", () => {
  sessionStorage.clear();
  location.reload();
});

async function open_() {
  find("door-error").textContent = "";
  try {
    const { retailers } = await call("/retailers");
    sessionStorage.setItem("repricer-key", desk.key);
    const known = retailers.map((each) => each.retailer);
    if (!known.includes(desk.retailer)) desk.retailer = known[0] || "";
    find("retailer").replaceChildren(...known.map((each) => new Option(each, each)));
    find("retailer").value = desk.retailer;
    find("retailer-label").hidden = known.length === 0;
    find("door").hidden = true;
    for (const id of ["desk", "halt", "forget"]) find(id).hidden = false;
    await begin();
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    desk.key = "";
    sessionStorage.removeItem("repricer-key");
    find("door").hidden = false;
    find("door-error").textContent = fault.message;
    find("key").focus();
  }
}

find("retailer").addEventListener("change", async () => {
  desk.retailer = find("retailer").value;
  await begin();
});

async function begin() {
  sessionStorage.setItem("repricer-retailer", desk.retailer);
  desk.stream?.stop();
  desk.prices.clear();
  desk.facts.clear();
  desk.moved.clear();
  desk.rows.clear();
  find("rows").replaceChildren();
  close_();
  desk.stream = follow(() => ({ key: desk.key, retailer: desk.retailer }), { reset, apply, link });
  await Promise.all([publishing(), readFacts()]);
}

async function readFacts() {
  let cursor = "";
  for (let page = 0; page < 20; page += 1) {
    const query = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const found = await call(`/products?limit=500&fields=id,title,category${query}`);
    for (const product of found.products) desk.facts.set(product.id, product);
    cursor = found.next_cursor;
    if (!cursor) break;
  }
  desk.dirty = true;
}

/* ----- what the stream tells --------------------------------------------------------------------- */

function reset(prices) {
  desk.prices = new Map(prices.map((price) => [placeOf(price), price]));
  desk.dirty = true;
  if (!desk.chosen && desk.prices.size) {
    const priced = [...desk.prices.values()].filter((price) => price.current_price);
    choose(placeOf((priced[0] || [...desk.prices.values()][0])));
  }
}

function apply(changes) {
  const now = Date.now();
  for (const price of changes) {
    const place = placeOf(price);
    const before = desk.prices.get(place);
    if (price.removed) {
      desk.prices.delete(place);
      desk.dirty = true;
      continue;
    }
    desk.prices.set(place, price);
    if (before === undefined || before.state !== price.state) desk.dirty = true;
    if (before && !same(before.current_price, price.current_price)) {
      desk.moved.set(place, { at: now, up: number(price.current_price) > number(before.current_price) });
      desk.moves.push(now);
      if (find("order").value === "recent") desk.dirty = true;
    }
    desk.changed.add(place);
    if (place === desk.chosen) note(price);
  }
}

function link(state) {
  find("link").textContent = state;
  find("link").classList.toggle("live", state === "live");
}

/* ----- the table ----------------------------------------------------------------------------------- */

for (const id of ["search", "channel", "category", "state", "order"]) {
  find(id).addEventListener("input", () => { desk.dirty = true; });
}

function matching() {
  const search = find("search").value.trim().toLowerCase();
  const channel = find("channel").value, category = find("category").value, state = find("state").value;
  const found = [];
  for (const [place, price] of desk.prices) {
    const facts = desk.facts.get(price.sku);
    if (channel && price.channel !== channel) continue;
    if (state && price.state !== state) continue;
    if (category && facts?.category !== category) continue;
    if (search && !price.sku.toLowerCase().includes(search)
      && !(facts?.title || "").toLowerCase().includes(search)) continue;
    found.push(place);
  }
  if (find("order").value === "recent") {
    const at = (place) => desk.moved.get(place)?.at || 0;
    found.sort((one, other) => at(other) - at(one) || (one < other ? -1 : 1));
  } else {
    found.sort();
  }
  return found;
}

function options(id, values) {
  const select = find(id), chosen = select.value, all = select.options[0].text;
  const wanted = ["", ...[...values].sort()];
  if (wanted.join("\u001f") === [...select.options].map((each) => each.value).join("\u001f")) return;
  select.replaceChildren(...wanted.map((value) => new Option(value || all, value)));
  select.value = wanted.includes(chosen) ? chosen : "";
}

function fill(row, place) {
  const price = desk.prices.get(place);
  if (!price) return;
  const cells = row.children, moved = desk.moved.get(place);
  const button = cells[0].firstChild;
  button.textContent = price.sku;
  cells[0].lastChild.textContent = desk.facts.get(price.sku)?.title || "";
  cells[1].textContent = price.channel;
  cells[2].textContent = text(price.current_price);
  if (moved) {
    const arrow = document.createElement("span");
    arrow.className = `change ${moved.up ? "up" : "down"}`;
    arrow.textContent = moved.up ? "▲" : "▼";
    arrow.title = moved.up ? "went up" : "went down";
    cells[2].append(arrow);
  }
  cells[3].textContent = text(price.recommended_price);
  cells[4].textContent = text(price.bounds.floor);
  cells[5].textContent = text(price.rival_price);
  cells[6].textContent = price.stock ?? "–";
  cells[7].firstChild.textContent = price.state;
  cells[7].firstChild.className = `badge ${price.state}`;
  cells[8].textContent = price.binding || (price.recommended_price ? "model" : "–");
}

function rowOf(place) {
  let row = desk.rows.get(place);
  if (row) return row;
  row = document.createElement("tr");
  for (let column = 0; column < 9; column += 1) row.append(document.createElement("td"));
  const button = document.createElement("button");
  button.type = "button";
  button.className = "name";
  const title = document.createElement("span");
  title.className = "title";
  row.children[0].append(button, title);
  for (const column of [2, 3, 4, 5, 6]) row.children[column].className = "number";
  row.children[7].append(document.createElement("span"));
  row.addEventListener("click", () => choose(place));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextSibling", ArrowUp: "previousSibling" }[event.key];
    if (step && row[step]) {
      event.preventDefault();
      row[step].querySelector("button").focus();
    }
  });
  desk.rows.set(place, row);
  return row;
}

function table() {
  options("channel", new Set([...desk.prices.values()].map((price) => price.channel)));
  options("state", new Set([...desk.prices.values()].map((price) => price.state)));
  options("category", new Set([...desk.facts.values()].map((each) => each.category).filter(Boolean)));
  const found = matching(), shown = found.slice(0, ROWS_MAX), focused = document.activeElement;
  for (const place of desk.rows.keys()) if (!desk.prices.has(place)) desk.rows.delete(place);
  find("rows").replaceChildren(...shown.map((place) => { const row = rowOf(place); fill(row, place); return row; }));
  if (focused && focused !== document.activeElement && find("rows").contains(focused)) focused.focus();
  find("empty").hidden = found.length > 0;
  find("shown").textContent = found.length > ROWS_MAX
    ? `The first ${ROWS_MAX} of ${found.length} listings; search or filter for the others.`
    : `${found.length} of ${desk.prices.size} listings`;
}

function figures() {
  const minute = Date.now() - 60000, states = {};
  while (desk.moves.length && desk.moves[0] < minute) desk.moves.shift();
  for (const price of desk.prices.values()) states[price.state] = (states[price.state] || 0) + 1;
  find("count-listings").textContent = desk.prices.size.toLocaleString("en");
  find("count-moves").textContent = desk.moves.length.toLocaleString("en");
  find("count-pending").textContent = (states.pending || 0).toLocaleString("en");
  const blocked = (states.held || 0) + (states.infeasible || 0) + (states.unpublishable || 0);
  find("count-blocked").textContent = blocked.toLocaleString("en");
}

/* One frame a quarter of a second: a person cannot read faster, and a market can. */
setInterval(() => {
  if (find("desk").hidden) return;
  if (desk.dirty) table();
  for (const place of desk.changed) {
    const row = desk.rows.get(place);
    if (!row || !row.isConnected) continue;
    fill(row, place);
    const moved = desk.moved.get(place);
    if (moved && Date.now() - moved.at < 400) {
      row.classList.add("moved");
      setTimeout(() => row.classList.remove("moved"), 350);
    }
  }
  if (desk.changed.has(desk.chosen) || desk.dirty) detail();
  desk.dirty = false;
  desk.changed.clear();
  figures();
}, 250);

/* ----- one listing ----------------------------------------------------------------------------------- */

function pointOf(price, at) {
  return {
    at,
    current: number(price.current_price),
    recommended: number(price.recommended_price),
    floor: number(price.bounds.floor),
    ceiling: number(price.bounds.ceiling),
    rival: number(price.rival_price),
    stock: price.stock,
  };
}

function note(price) {
  if (!price.decided_at) return;
  const point = pointOf(price, Date.parse(price.decided_at)), last = desk.points[desk.points.length - 1];
  if (last && point.at <= last.at) desk.points.pop();
  desk.points.push(point);
  if (desk.points.length > POINTS_MAX) desk.points.shift();
}

function close_() {
  desk.chosen = "";
  desk.points = [];
  find("detail-body").hidden = true;
  find("detail-state").hidden = true;
  find("detail-title").textContent = "No listing chosen";
}

async function choose(place) {
  desk.rows.get(desk.chosen)?.classList.remove("chosen");
  desk.chosen = place;
  desk.points = [];
  find("action-result").textContent = "";
  pointed = -1;
  const price = desk.prices.get(place);
  const path = `/products/${encodeURIComponent(price.sku)}`;
  const channel = `channel=${encodeURIComponent(price.channel)}`;
  detail();
  const history = await call(`${path}/history?${channel}`);
  if (desk.chosen !== place) return;
  const read = (amount) => (amount === null ? null : Number(amount));
  const past = history.points.map((point) => ({
    at: Date.parse(point.at),
    current: read(point.current),
    recommended: read(point.recommended),
    floor: read(point.floor),
    ceiling: read(point.ceiling),
    rival: read(point.rival),
    stock: point.stock,
  }));
  const newest = past.length ? past[past.length - 1].at : 0;
  desk.points = [...past, ...desk.points.filter((point) => point.at > newest)].slice(-POINTS_MAX);
  if (!desk.points.length && price.decided_at) note(price);
  detail();
}

let explaining = "";

async function explain(price) {
  const quote = price.quote_id;
  if (!quote || explaining === quote) return;
  explaining = quote;
  try {
    const answer = await call(`/products/${encodeURIComponent(price.sku)}/explanation?channel=${encodeURIComponent(price.channel)}`);
    if (desk.chosen === placeOf(price)) find("why").textContent = answer.text;
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    find("why").textContent = fault.message;
  }
}

let chart = null;

function detail() {
  const price = desk.prices.get(desk.chosen);
  if (!price) { close_(); return; }
  desk.rows.get(desk.chosen)?.classList.add("chosen");
  const facts = desk.facts.get(price.sku);
  find("detail-body").hidden = false;
  find("detail-title").textContent = facts?.title ? `${price.sku} · ${facts.title}` : price.sku;
  const currency = price.current_price?.currency || price.recommended_price?.currency || "";
  find("detail-sub").textContent = [price.channel, facts?.category, currency].filter(Boolean).join(" · ");
  find("detail-state").hidden = false;
  find("detail-state").textContent = price.state;
  find("detail-state").className = `badge ${price.state}`;
  const confidence = price.confidence === null ? "–" : `${Math.round(price.confidence * 100)} %`;
  const shown = [
    ["In force", text(price.current_price)],
    ["Recommended", text(price.recommended_price)],
    ["Floor to ceiling", `${text(price.bounds.floor)} – ${text(price.bounds.ceiling)}`],
    ["Confidence", confidence],
  ];
  find("facts").replaceChildren(...shown.map(([name, value]) => {
    const box = document.createElement("div");
    const term = document.createElement("dt"), said = document.createElement("dd");
    term.textContent = name;
    said.textContent = value;
    box.append(term, said);
    return box;
  }));
  find("reasons").replaceChildren(...price.reasons.map((reason) => {
    const item = document.createElement("li");
    item.className = "badge";
    item.textContent = reason.replaceAll("_", " ");
    return item;
  }));
  paint(price);
  explain(price);
  actions(price);
}

function paint(price) {
  const latest = desk.points.length ? desk.points[desk.points.length - 1].at : 0;
  // At event time the newest decision is now; a wall clock would draw years of nothing.
  const now = Math.abs(Date.now() - latest) < 3600000 ? Date.now() : latest;
  chart = desk.points.length ? draw(find("chart"), desk.points, now) : null;
  if (!desk.points.length) find("chart").replaceChildren();
  if (chart && hovering && pointed >= 0 && pointed < desk.points.length) tell(pointed);
  else caption(price);
}

function caption(price) {
  const count = desk.points.length;
  find("chart-title").textContent =
    `${price.sku} on ${price.channel}: ${text(price.current_price)} in force, ${count} decision${count === 1 ? "" : "s"} in view.`;
}

function tell(index) {
  const point = desk.points[index], amount = (value) => (value === null ? "–" : value);
  const at = chart.mark(index);
  find("chart-title").textContent =
    `${at}: in force ${amount(point.current)}, floor ${amount(point.floor)}, ceiling ${amount(point.ceiling)}, rivals ${amount(point.rival)}, stock ${amount(point.stock)}`;
}

let pointed = -1, hovering = false;
find("chart").addEventListener("pointermove", (event) => {
  if (!chart) return;
  hovering = true;
  pointed = chart.nearest(event.clientX - find("chart").getBoundingClientRect().left);
  tell(pointed);
});
find("chart").addEventListener("pointerleave", () => {
  hovering = false;
  chart?.clear();
  const price = desk.prices.get(desk.chosen);
  if (price) caption(price);
});
find("chart").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!chart || !step) return;
  event.preventDefault();
  if (pointed < 0) pointed = desk.points.length - 1;
  hovering = true;
  pointed = Math.min(Math.max(pointed + step, 0), desk.points.length - 1);
  tell(pointed);
});

/* ----- what a person decides --------------------------------------------------------------------- */

let offered = "";

function actions(price) {
  const key = [placeOf(price), price.state, price.state === "pending" ? price.quote_id : ""].join("|");
  if (key === offered) return;
  offered = key;
  const box = find("actions");
  box.replaceChildren();
  const button = (label, verb, body, kind = "") => {
    const element = document.createElement("button");
    element.type = "button";
    element.className = kind;
    element.textContent = label;
    element.addEventListener("click", () => act(price, verb, body(), element));
    box.append(element);
  };
  if (price.state === "pending") {
    const quote_id = price.quote_id;
    button(`Approve ${text(price.recommended_price)}`, "approve-price", () => ({ quote_id }), "primary");
    button("Reject", "reject-price", () => ({ quote_id }));
  }
  if (price.state === "pinned") {
    button("Unpin", "unpin-price", () => ({}));
  } else {
    const currency = price.current_price?.currency || price.recommended_price?.currency;
    if (!currency) return;
    const label = document.createElement("label");
    label.textContent = "Pin at ";
    const input = document.createElement("input");
    input.inputMode = "decimal";
    input.value = price.current_price?.amount || price.recommended_price?.amount || "";
    label.append(input);
    box.append(label);
    button("Pin", "pin-price", () => ({ price: { amount: input.value.trim(), currency } }));
  }
}

async function act(price, verb, body, button) {
  button.disabled = true;
  find("action-result").textContent = "Waiting for the decision …";
  try {
    const path = `/products/${encodeURIComponent(price.sku)}/${verb}?channel=${encodeURIComponent(price.channel)}`;
    const answer = await call(path, { method: "POST", body });
    find("action-result").textContent = answer.status === "pending"
      ? `Recorded; operation ${answer.operation_id} is still being decided.`
      : `Done${answer.detail ? `: ${answer.detail}` : "."}`;
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    find("action-result").textContent = fault.message;
  } finally {
    button.disabled = false;
  }
}

async function publishing() {
  if (!desk.retailer) return;
  const state = await call("/publishing");
  const mode = { shadow: "shadow mode", live: "live", mixed: "live in part" }[state.mode];
  if (state.stale) badge(`${mode} when last heard of, ${since(state.as_of)}`, "stale");
  else badge(mode, state.mode === "live" ? "live" : "");
  const tripped = state.breakers.length > 0, halted = state.halts.length > 0;
  find("alarm").hidden = !tripped && !halted;
  find("alarm-title").textContent = tripped ? "The breaker stopped publishing." : "Publishing is halted.";
  find("alarm-text").textContent = tripped
    ? state.breakers.map((each) => `Shard ${each.shard}: ${each.reasons.join(", ") || "too many prices would have moved"}`).join("; ")
    : state.halts.map((each) => `${each.channel || "all channels"}${each.reason ? `: ${each.reason}` : ""}`).join("; ");
  find("halt").disabled = halted;
}

/* The one mark that all of the page shares: how old what it shows of the retailer may be. */
function badge(said, kind) {
  find("mode").hidden = false;
  find("mode").textContent = said;
  find("mode").className = `badge ${kind}`;
}

const since = (as_of) => (Date.parse(as_of) > 0 ? new Date(as_of).toLocaleString("en") : "never");

async function publish(verb, body) {
  try {
    await call(`/publishing:${verb}`, { method: "POST", body });
    await publishing();
  } catch (fault) {
    if (!(fault instanceof Refused)) throw fault;
    find("alarm").hidden = false;
    find("alarm-title").textContent = `Could not ${verb}.`;
    find("alarm-text").textContent = fault.message;
  }
}

find("resume").addEventListener("click", () => publish("resume", {}));
find("halt").addEventListener("click", () => {
  if (confirm("Stop publishing every price of this retailer?")) {
    publish("halt", { reason: "halted from the console" });
  }
});

/* ----- the shards -------------------------------------------------------------------------------------- */

async function shards() {
  const health = await (await fetch("/readyz?verbose=1")).json();
  find("shards").replaceChildren(...health.shards.map((shard) => {
    const item = document.createElement("li");
    const bad = shard.failure || shard.stale;
    item.className = `badge ${bad ? "stale" : "live"}`;
    item.textContent = `shard ${shard.shard} ${shard.failure ? "failed" : shard.stale ? "silent" : "live"}`;
    item.title = shard.failure || `epoch ${shard.epoch}, decision ${shard.seq}, heard ${shard.age_ms ?? "never"} ms ago`;
    return item;
  }));
}

setInterval(() => {
  if (find("desk").hidden) return;
  shards().catch(() => find("shards").replaceChildren());
  publishing().catch(() => badge("mode unknown: no answer", "stale"));
}, 2000);

addEventListener("resize", () => { const price = desk.prices.get(desk.chosen); if (price) paint(price); });
if (desk.key) { find("door").hidden = true; open_().then(shards); }
