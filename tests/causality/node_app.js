// A Node server under observation: no context that can be seen from outside, one thread for all. What it shows is that
// nothing is linked wrongly: a call is given to a request only while that is the only one, and then it says "inferred".
//
// usage: node_app.js PORT BACKEND_PORT

const http = require("http");
const [port, backend] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true });

const call = (path) =>
  new Promise((resolve, reject) => {
    http
      .get({ host: "127.0.0.1", port: backend, path: `/x/${path}`, agent }, (answer) => {
        answer.resume();
        answer.on("end", resolve);
      })
      .on("error", reject);
  });

const cases = {
  async: async (i) => {
    await call(`async/${i}/1`);
    await call(`async/${i}/2`);
  },
  gather: (i) => Promise.all([call(`gather/${i}/1`), call(`gather/${i}/2`)]),
};

const server = http.createServer(async (request, answer) => {
  const [, name, i] = request.url.split("/");
  if (!cases[name]) {
    answer.writeHead(404, { "content-length": 0 }).end();
    return;
  }
  await cases[name](i);
  answer.writeHead(200, { "content-length": i.length }).end(i);
});
server.listen({ port, host: "127.0.0.1", backlog: 4096 });
// Work that no request caused.
setInterval(() => call("poll/none/0").catch(() => {}), 20);
