#!/usr/bin/env bash
# Brings the compose file up with three workers, submits orders from Node.js, kills a worker while they run,
# waits until all are complete, and takes everything down again.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-50}
compose() { docker compose -p liteflow-check "$@"; }
trap 'compose down -v --remove-orphans >/dev/null 2>&1' EXIT

compose up -d --build --wait --scale worker=3
(cd deploy/submit-js && npm install --silent --no-audit --no-fund)
node deploy/submit-js/submit.js "amqp://guest:guest@127.0.0.1:${RABBITMQ_PORT:-5672}/" "$count" | tail -3
victim=$(compose ps -q worker | head -1)
docker kill "$victim" >/dev/null
echo "killed one worker of three"
deadline=$((SECONDS + 120))
complete=0
while [ "$complete" -lt "$count" ] && [ $SECONDS -lt $deadline ]; do
    complete=$(compose exec -T scheduler liteflow list --status COMPLETE --limit 1000 --json |
        python3 -c 'import json, sys; print(len(json.load(sys.stdin)["items"]))')
    echo "$complete of $count complete"
done
compose ps
[ "$complete" -eq "$count" ]
