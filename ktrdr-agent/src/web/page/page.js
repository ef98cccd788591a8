"use strict";
// What services say is shown as text, never as markup: elements are made here, and filled through text nodes.
const at = (id) => document.getElementById(id);
const main = at("main");
// A browser draws some thousand rows quickly, and nobody reads more.
const MAX_ROWS = 2000;

function el(tag, props, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (key.startsWith("--")) made.style.setProperty(key, value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
  return made;
}

class Unauthorised extends Error {}

async function get(path, params) {
  const query = new URLSearchParams(params || {}).toString();
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const reply = await fetch(query ? `${path}?${query}` : path, { headers, cache: "no-store" });
  if (reply.status === 401) throw new Unauthorised();
  const data = await reply.json();
  if (!reply.ok) {
    const said = data.error || (data.errors && data.errors[0] && data.errors[0].msg) || reply.statusText;
    throw Object.assign(new Error(said), { suggestions: data.suggestions || [] });
  }
  return data;
}

function time(ms) {
  if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 1000) return `${ms.toFixed(ms < 10 ? 2 : 1)} ms`;
  return ms < 120000 ? `${(ms / 1000).toFixed(2)} s` : `${(ms / 60000).toFixed(1)} min`;
}

const after = (ms) => (ms < 0 ? `${time(-ms)} before` : `${time(ms)} after`);
const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

function clock(rfc3339) {
  const when = new Date(rfc3339);
  return `${when.toLocaleDateString()} ${when.toLocaleTimeString()}`;
}

function hue(name) {
  let h = 0;
  for (const c of name) h = (h * 31 + c.codePointAt(0)) % 360;
  return String(h);
}

function row(kind, open, ...cells) {
  const made = el("div", { role: "row", className: kind, tabIndex: 0 }, ...cells);
  made.addEventListener("click", () => open(made));
  return made;
}

const cell = (text, className) => el("span", { role: "cell", className: className || "", title: text }, text);
const go = (hash) => () => { location.hash = hash; };
const traceHash = (id) => `#/trace/${encodeURIComponent(id)}`;
const askHash = (query) => `#/ask/${encodeURIComponent(query)}`;
const GOOD = ["ok", "slow", "waiting", "cancelled", "missing_data", "gpu_not_used", "gpu_idle"];

// The first view: what failed, and what happened.
async function recent() {
  const params = { limit: 50 };
  if (at("service").value) params.service = at("service").value;
  if (at("failed").checked) params.tag = "error:true";
  const [services, list, found] = await Promise.all([
    get("/api/services"), get("/ktrdr/list", { limit: 30 }), get("/ktrdr/find", params)]);
  const chosen = at("service").value;
  at("service").replaceChildren(el("option", { value: "" }, "all"),
    ...services.data.map((s) => el("option", { value: s, selected: s === chosen }, s)));
  const told = list.rows.map((r) => row("list", go(askHash(r.id)), cell(clock(r.time), "soft"),
    cell(time(r.duration_ms), "num"), cell(r.kind + (r.count > 1 ? ` × ${r.count}` : ""), GOOD.includes(r.kind) ? "good" : "bad"),
    cell(r.sentence, "text")));
  const traces = found.traces.map((t) => row("list", go(traceHash(t.trace_id)), cell(clock(t.time), "soft"),
    cell(time(t.duration_ms), "num"), cell(t.root),
    cell([t.services.join(", "), many(t.spans, "span"), t.failed ? `${t.failed} failed` : "", t.error || ""]
      .filter(Boolean).join(" · "), t.failed ? "bad text" : "text")));
  const none = (text) => el("p", { className: "soft" }, text);
  return ["Recent traces", el("h2", {}, "Operations and failures"), ...(told.length ? told : [none("None so far.")]),
    el("h2", {}, `Recent traces (${many(list.traces, "trace")} with ${many(list.spans, "span")} remembered)`),
    ...(traces.length ? traces : [none("None that fits.")])];
}

// The verdict, with what supports it and what is missing.
function verdict(report) {
  const v = report.verdict;
  const failed = report.causes.length > 0;
  const list = (title, items) => (items.length ? [el("div", { className: "soft" }, title),
    el("ul", {}, ...items.map((i) => el("li", {}, i)))] : []);
  const who = [v.service, v.peer].filter(Boolean).join(" → ");
  return el("section", { className: failed ? "verdict failed" : "verdict", "aria-label": "verdict" },
    el("span", { className: `badge ${failed ? "bad" : "good"}` }, v.kind), " ",
    el("span", { className: "soft" }, [who, v.confidence, v.attempts > 1 ? `${v.attempts} attempts` : ""].filter(Boolean).join(" · ")),
    el("p", {}, v.sentence),
    ...list("What to do next", report.hints), ...list("What is missing from the picture", report.gaps));
}

// Spans in the order of a walk through the tree; those whose parent is not here are roots.
function walk(spans) {
  const byId = new Map(spans.map((s) => [s.spanID, s]));
  const below = new Map();
  const roots = [];
  for (const span of spans) {
    const up = span.references.find((r) => r.refType === "CHILD_OF" && r.traceID === span.traceID);
    const parent = up && up.spanID !== span.spanID ? byId.get(up.spanID) : undefined;
    if (!parent) roots.push(span);
    else if (below.has(parent)) below.get(parent).push(span);
    else below.set(parent, [span]);
  }
  const out = [];
  const seen = new Set();
  const todo = roots.map((s) => [s, 0]).reverse();
  while (todo.length) {
    const [span, depth] = todo.pop();
    if (seen.has(span)) continue;
    seen.add(span);
    out.push([span, depth]);
    for (const child of (below.get(span) || []).slice().reverse()) todo.push([child, depth + 1]);
  }
  return out;
}

const pairs = (items) => el("dl", {}, ...items.flatMap((t) => [el("dt", {}, t.key), el("dd", {}, String(t.value))]));

function details(span, process) {
  const facts = [{ key: "span id", value: span.spanID },
    ...span.references.map((r) => ({ key: r.refType === "CHILD_OF" ? "parent" : "link", value: `${r.traceID} ${r.spanID}` }))];
  return el("div", { className: "more" }, pairs([...facts, ...span.tags]),
    ...span.logs.flatMap((l) => [el("h2", {}, `event, ${after((l.timestamp - span.startTime) / 1000)} the begin`), pairs(l.fields)]),
    el("h2", {}, process.serviceName), pairs(process.tags));
}

function waterfall(trace, cause) {
  const begin = Math.min(...trace.spans.map((s) => s.startTime));
  const end = Math.max(...trace.spans.map((s) => s.startTime + s.duration));
  const whole = Math.max(end - begin, 1);
  const all = walk(trace.spans);
  const rows = all.slice(0, MAX_ROWS).map(([span, depth]) => {
    const process = trace.processes[span.processID];
    const failed = span.tags.some((t) => t.key === "error" && t.value === true);
    const kind = span.tags.find((t) => t.key === "span.kind");
    const bar = el("span", { className: "bar" });
    bar.style.left = `${((span.startTime - begin) / whole) * 100}%`;
    bar.style.width = `${(span.duration / whole) * 100}%`;
    const toggle = (made) => {
      const next = made.nextElementSibling;
      if (next && next.classList.contains("more")) next.remove();
      else made.after(details(span, process));
    };
    return row(`span${failed ? " failed" : ""}${span.spanID === cause ? " cause" : ""}`, toggle,
      el("span", { role: "cell", className: "name", "--depth": String(Math.min(depth, 20)), title: span.operationName },
        el("span", { className: "service", "--hue": hue(process.serviceName) }, process.serviceName),
        el("span", { className: failed ? "bad" : "" }, span.operationName), " ",
        el("small", { className: "soft" }, kind ? String(kind.value) : "")),
      el("span", { role: "cell", className: "track", "--hue": hue(process.serviceName) }, bar),
      cell(time(span.duration / 1000), "num"));
  });
  const notes = [...(trace.warnings || [])];
  if (all.length > MAX_ROWS) notes.push(`${all.length - MAX_ROWS} more spans are not shown; /api/traces/${trace.traceID} has them`);
  return [el("h2", {}, `${many(trace.spans.length, "span")} in ${time(whole / 1000)}, trace ${trace.traceID}`), ...rows,
    ...notes.map((n) => el("p", { className: "bad" }, n))];
}

async function oneTrace(id) {
  const [traces, report] = await Promise.all([
    get(`/api/traces/${encodeURIComponent(id)}`), get("/ktrdr/explain", { query: id }).catch((e) => {
      if (e instanceof Unauthorised) throw e;
      return null;
    })]);
  const said = report ? [verdict(report)] : [];
  return [`Trace ${id}`, ...said, ...waterfall(traces.data[0], report && report.verdict.span_id)];
}

// Any question: the verdict, and the traces it was drawn from.
async function ask(query) {
  const report = await get("/ktrdr/explain", { query });
  const parts = [query, verdict(report)];
  for (const id of report.trace_ids.slice(0, 3)) {
    const traces = await get(`/api/traces/${encodeURIComponent(id)}`).catch(() => null);
    if (traces) parts.push(...waterfall(traces.data[0], report.verdict.span_id));
  }
  return parts;
}

let turn = 0;
async function show() {
  const mine = ++turn;
  let parts;
  try {
    const [, view, rest] = (location.hash || "#/").split("/").map(decodeURIComponent);
    parts = await (view === "trace" ? oneTrace(rest) : view === "ask" ? ask(rest) : recent());
    at("login").hidden = true;
  } catch (e) {
    if (e instanceof Unauthorised) {
      at("login").hidden = false;
      at("token").focus();
      parts = ["Token"];
    } else {
      parts = ["No answer", el("p", { className: "bad" }, e.message || String(e)),
        ...(e.suggestions || []).map((s) => row("list", go(askHash(s)), cell(s)))];
    }
  }
  // A later question was faster.
  if (mine !== turn) return;
  const [title, ...nodes] = parts;
  document.title = `${title} – ktrdr-agent`;
  main.replaceChildren(...nodes);
  const first = main.querySelector("[role=row].cause") || main.querySelector("[role=row]");
  if (first && document.activeElement === document.body) first.focus();
}

function move(step) {
  const rows = [...main.querySelectorAll("[role=row]")];
  const now = rows.indexOf(document.activeElement);
  const next = rows[now < 0 ? 0 : Math.min(Math.max(now + step, 0), rows.length - 1)];
  if (next) next.focus();
}

const KEYS = {
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  u: () => history.back(), r: show, "/": () => at("query").focus(),
  e: () => { at("failed").checked = !at("failed").checked; show(); },
  Enter: () => { if (document.activeElement.getAttribute("role") === "row") document.activeElement.click(); },
};

addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (["INPUT", "SELECT"].includes(document.activeElement.tagName)) {
    if (e.key === "Escape") document.activeElement.blur();
    return;
  }
  const act = KEYS[e.key];
  if (!act || (e.key === "Enter" && document.activeElement.getAttribute("role") !== "row")) return;
  e.preventDefault();
  act();
});
at("ask").addEventListener("submit", (e) => {
  e.preventDefault();
  const query = at("query").value.trim();
  at("query").blur();
  if (query) location.hash = askHash(query);
});
at("login").addEventListener("submit", (e) => {
  e.preventDefault();
  sessionStorage.setItem("token", at("token").value);
  at("token").value = "";
  show();
});
at("reload").addEventListener("click", show);
at("service").addEventListener("change", () => { location.hash = "#/"; show(); });
at("failed").addEventListener("change", () => { location.hash = "#/"; show(); });
addEventListener("hashchange", show);
show();
