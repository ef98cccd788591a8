// The service of the end-to-end tests with Node's http module (see asgi_app.py).
const http = require("node:http");

http
  .createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      const words = request.url.split("?")[0].split("/").slice(4);
      const end = (status, body) => {
        response.writeHead(status, status === 204 || status === 304 ? {} : { "content-length": body.length });
        response.end(request.method === "HEAD" ? undefined : body);
      };
      switch (words[0]) {
        case "bytes":
          return end(200, Buffer.alloc(Number(words[1]), "x"));
        case "echo":
          return end(200, Buffer.concat(parts));
        case "status":
          return end(Number(words[1]), Buffer.from([204, 304].includes(Number(words[1])) ? "" : "status"));
        case "slow":
          return setTimeout(() => end(200, Buffer.from("slow")), Number(words[1]));
        case "chunked": {
          response.writeHead(200);
          for (let n = 0; n < Number(words[1]); n++) response.write(Buffer.alloc(Number(words[2]), "x"));
          return response.end();
        }
        default:
          return end(404, Buffer.from("nothing here"));
      }
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
