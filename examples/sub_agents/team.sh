#!/bin/sh
# Twelve sub-agents share the budget of this run; each may spend at most 1 USD of it. The arguments are its command.
for number in 1 2 3 4 5 6 7 8 9 10 11 12; do
  url=$(curl -s "$CYCLES_PROXY_URL/shares" -d "{\"name\": \"researcher-$number\", \"limit\": \"1USD\"}" |
    sed 's/.*"proxy_url": "\([^"]*\)".*/\1/')
  OPENAI_BASE_URL=$url/openai/v1 "$@" > /dev/null &
done
wait
