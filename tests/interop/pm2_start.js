"use strict";
// `pm2 start FILE` for each line on stdin, through PM2's own API; one line of JSON in answer, null or
// the error. Unlike the command, it loads PM2 once.

const readline = require("node:readline");
const pm2 = require("pm2");

pm2.connect((error) => {
  if (error) {
    console.log(JSON.stringify(String(error.message || error)));
    process.exit(1);
  }
  readline.createInterface({ input: process.stdin }).on("line", (file) =>
    pm2.start(file, (error) => console.log(JSON.stringify(error ? String(error.message || error) : null))),
  );
});
process.stdin.on("end", () => process.exit());
