#!/usr/bin/env node
// Prisma's query engine 5.17 from npm, as WebAssembly, behind the command line and the HTTP interface of its binary.
//
// LiteLLM's Prisma client starts the binary, which can only be downloaded from a host that is no package registry. The
// WebAssembly engine takes requests in Prisma's JSON protocol, the client sends GraphQL: this file translates them.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const { PrismaPg } = require("@prisma/adapter-pg");
const schema = require("@prisma/prisma-schema-wasm");
const { bindAdapter } = require("@prisma/driver-adapter-utils");
const { Pool } = require("pg");

if (process.argv.includes("--version")) {
  console.log("query-engine 393aa359c9ad4a4bb28630fb5613f9c281cde053");
  process.exit(0);
}

const TOKENS = /\s*,?\s*("(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[A-Za-z_]\w*|[{}()[\]:])/y;
const OPERATION =
  /^(findUnique|findFirst|findMany|createOne|createMany|updateOne|updateMany|deleteOne|deleteMany|upsertOne|aggregate|groupBy)(.+?)(OrThrow)?$/;
const WORDS = { true: true, false: false, null: null };

function tokens(text) {
  const found = [];
  TOKENS.lastIndex = 0;
  for (let match; (match = TOKENS.exec(text)); ) found.push(match[1]);
  return found;
}

function value(from) {
  const token = from.shift();
  if (token === "{") {
    const members = {};
    while (from[0] !== "}") {
      const name = from.shift();
      from.shift(); // the colon
      members[name.startsWith('"') ? JSON.parse(name) : name] = value(from);
    }
    from.shift();
    return members;
  }
  if (token === "[") {
    const items = [];
    while (from[0] !== "]") items.push(value(from));
    from.shift();
    return items;
  }
  if (token in WORDS) return WORDS[token];
  return /^[A-Za-z_]/.test(token) ? token : JSON.parse(token);
}

function callArguments(from) {
  const given = {};
  if (from[0] !== "(") return given;
  from.shift();
  while (from[0] !== ")") {
    const name = from.shift();
    from.shift();
    given[name] = value(from);
  }
  from.shift();
  return given;
}

function selection(from) {
  const fields = {};
  if (from[0] !== "{") return fields;
  from.shift();
  while (from[0] !== "}") {
    const name = from.shift();
    const given = callArguments(from);
    fields[name] = from[0] === "{" ? { arguments: given, selection: selection(from) } : true;
  }
  from.shift();
  return fields;
}

// Returns arguments in which values of the type Json are tagged: GraphQL has them as strings.
function tagged(given, fields, modelName) {
  if (Array.isArray(given)) return given.map((each) => tagged(each, fields, modelName));
  if (given === null || typeof given !== "object") return given;
  const members = Object.entries(given).map(([name, member]) => {
    const type = (fields[modelName] || {})[name];
    return [name, type === "Json" ? json(member) : tagged(member, fields, type in fields ? type : modelName)];
  });
  return Object.fromEntries(members);
}

function json(member) {
  if (typeof member === "string") return { $type: "Json", value: member };
  if (member === null || typeof member !== "object" || Array.isArray(member)) return member;
  return Object.fromEntries(Object.entries(member).map(([name, each]) => [name, name === "path" ? each : json(each)]));
}

// Returns the JSON form of `mutation { result: updateOneModel (where: {...}) { id } }`.
function translated(text, fields) {
  const from = tokens(text);
  from.splice(0, 4); // `mutation { result :`
  const name = from.shift();
  const query = { arguments: callArguments(from), selection: selection(from) };
  if (name === "queryRaw" || name === "executeRaw") return { action: name, query };
  const [, action, modelName, orThrow] = OPERATION.exec(name);
  query.arguments = tagged(query.arguments, fields, modelName);
  return { modelName, action: action + (orThrow || ""), query };
}

// The JSON protocol tags values that JSON lacks; GraphQL has them as they are.
function plain(given) {
  if (Array.isArray(given)) return given.map(plain);
  if (given === null || typeof given !== "object") return given;
  if ("$type" in given) return given.value;
  return Object.fromEntries(Object.entries(given).map(([name, member]) => [name, plain(member)]));
}

function result(response) {
  if (response.errors || !response.data) return response;
  const found = plain(Object.values(response.data)[0]);
  if (found && found.columns && found.rows) {
    // Rows of a raw query: the binary has documents as values.
    const isJson = found.types.map((type) => type === "json");
    const parsed = (each, at) => (isJson[at] && typeof each === "string" ? JSON.parse(each) : each);
    found.rows = found.rows.map((row) => row.map(parsed));
  }
  return { data: { result: found } };
}

async function main() {
  const runtime = require("@prisma/client/runtime/query_engine_bg.postgresql.js");
  const bytes = fs.readFileSync(require.resolve("@prisma/client/runtime/query_engine_bg.postgresql.wasm"));
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { "./query_engine_bg.js": runtime });
  runtime.__wbg_set_wasm(instance.exports);
  const datamodel = fs.readFileSync(process.env.PRISMA_DML_PATH, "utf8");
  const { models } = JSON.parse(schema.get_dmmf(JSON.stringify({ prismaSchema: datamodel, noColor: true }))).datamodel;
  const types = (model) => Object.fromEntries(model.fields.map((field) => [field.name, field.type]));
  const fields = Object.fromEntries(models.map((model) => [model.name, types(model)]));
  const settings = {
    datamodel,
    logLevel: "error",
    logQueries: false,
    env: process.env,
    engineProtocol: "json",
    enableTracing: false,
  };
  const adapter = bindAdapter(new PrismaPg(new Pool({ connectionString: process.env.DATABASE_URL, max: 10 })));
  const engine = new runtime.QueryEngine(settings, () => {}, adapter);
  await engine.connect("{}");

  async function respond(request, body) {
    const [, start, id, end] = /^\/transaction\/(start)?(?:([^/]+)\/(commit|rollback))?/.exec(request.url) || [];
    if (start) return engine.startTransaction(body, "{}");
    if (end === "commit") return engine.commitTransaction(id, "{}");
    if (end === "rollback") return engine.rollbackTransaction(id, "{}");
    if (request.method !== "POST") return JSON.stringify({ status: "ok" });
    const given = JSON.parse(body);
    const sent = given.batch
      ? { batch: given.batch.map((each) => translated(each.query, fields)), transaction: given.transaction ? {} : null }
      : translated(given.query, fields);
    const response = JSON.parse(
      await engine.query(JSON.stringify(sent), "{}", request.headers["x-transaction-id"]),
    );
    if (response.batchResult) response.batchResult = response.batchResult.map(result);
    return JSON.stringify(result(response));
  }

  const server = http.createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    try {
      const sent = await respond(request, Buffer.concat(parts).toString());
      response.setHeader("content-type", "application/json");
      response.end(sent || "{}");
    } catch (problem) {
      console.error(problem);
      response.statusCode = 500;
      response.end(String(problem));
    }
  });
  server.listen(Number(process.argv[process.argv.indexOf("-p") + 1]), "localhost");
}

for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => process.exit(0));
const parent = process.ppid;
setInterval(() => process.ppid === parent || process.exit(0), 500).unref(); // a killed proxy cannot end its engine
main();
