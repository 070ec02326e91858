// Prints what `prisma generate` would send to the generator of LiteLLM's client: node prepare.cjs SCHEMA OUTPUT
"use strict";
const fs = require("node:fs");
const schema = require("@prisma/prisma-schema-wasm");

const [, , schemaPath, output] = process.argv;
const datamodel = fs.readFileSync(schemaPath, "utf8");
const given = { prismaSchema: [[schemaPath, datamodel]], datasourceOverrides: {}, env: {}, ignoreEnvVarErrors: true };
const { datasources, generators } = JSON.parse(schema.get_config(JSON.stringify(given))).config;
const parameters = {
  datamodel,
  version: "393aa359c9ad4a4bb28630fb5613f9c281cde053",
  generator: { ...generators[0], output: { value: output, fromEnvVar: null }, binaryTargets: [] },
  dmmf: JSON.parse(schema.get_dmmf(JSON.stringify({ prismaSchema: given.prismaSchema, noColor: true }))),
  schemaPath,
  datasources,
  otherGenerators: [],
  binaryPaths: {},
};
process.stdout.write(JSON.stringify(parameters));
