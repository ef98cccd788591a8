// Reads the agent's page as a person does: URL TOKEN. Signs in, opens the newest trace with the keyboard, and all of
// its spans; prints what is shown then.
const { JSDOM, VirtualConsole } = require("jsdom");

const [url, token] = process.argv.slice(2);

// Until `what` is there: the page changes itself, and says so to an observer.
function until(window, what, name) {
  return new Promise((resolve, reject) => {
    const look = () => {
      const found = what();
      if (found) {
        clearTimeout(late);
        observer.disconnect();
        resolve(found);
      }
    };
    const observer = new window.MutationObserver(look);
    const late = setTimeout(() => reject(new Error(`no ${name}: ${window.document.body.outerHTML}`)), 20000);
    observer.observe(window.document, { subtree: true, childList: true, attributes: true });
    look();
  });
}

async function main() {
  const errors = [];
  const virtualConsole = new VirtualConsole();
  virtualConsole.on("jsdomError", (e) => errors.push(String(e)));
  const dom = await JSDOM.fromURL(url, {
    runScripts: "dangerously",
    virtualConsole,
    beforeParse(window) {
      window.fetch = (path, options) => fetch(new URL(path, url), options);
    },
  });
  const { window } = dom;
  const { document } = window;
  const key = (name) => document.dispatchEvent(new window.KeyboardEvent("keydown", { key: name, bubbles: true }));
  const rows = (kind) => [...document.querySelectorAll(`main [role=row].${kind}`)];
  const texts = (list) => list.map((r) => r.textContent.replace(/\s+/g, " "));

  await until(window, () => !document.getElementById("login").hidden, "question for the token");
  const before = texts(rows("list"));
  document.getElementById("token").value = token;
  document.getElementById("login").dispatchEvent(new window.Event("submit", { cancelable: true }));
  await until(window, () => rows("list").length > 0, "list");
  const list = texts(rows("list"));
  rows("list").at(-1).focus();
  key("k");
  key("j");
  key("Enter");
  await until(window, () => rows("span").length > 0, "trace");
  for (const span of rows("span")) {
    span.focus();
    key("Enter");
  }
  console.log(JSON.stringify({
    before, list, errors, hash: window.location.hash, spans: texts(rows("span")),
    verdict: document.querySelector("main .verdict").textContent,
    main: document.querySelector("main").textContent,
    elements: [...new Set([...document.querySelectorAll("main *")].map((e) => e.tagName))],
  }));
  window.close();
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
