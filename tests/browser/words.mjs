// Has the page's words.js say what errors of a browser come to.
//
// Usage: node words.mjs WORDS_JS, with a JSON array on stdin: of each test its result, url and isNameKnown. Prints an array of arrays of texts.

import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";

const { troubles } = await import(`data:text/javascript,${encodeURIComponent(readFileSync(process.argv[2], "utf8"))}`);
const tests = JSON.parse(await text(process.stdin));
const said = ({ result, url, isNameKnown }) => troubles(result, url, { isNameKnown, own: null }).map(({ errorCode, text }) => `${errorCode} ${text}`);
console.log(JSON.stringify(tests.map(said)));
