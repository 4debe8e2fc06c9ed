#!/bin/bash
# Put Apache Kafka's jars into .make/kafka, for the tests on real brokers; tests/kafka/pom.xml names the version. Does nothing where they are there.
# Maven and a Java runtime come from the distribution's packages where they are missing and may be installed.
# Where that cannot be done, it says so and ends well: the tests then say that they were not run.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

pom=tests/kafka/pom.xml
place=.make/kafka
if cmp -s "$pom" "$place/pom.xml" && command -v java > /dev/null; then exit 0; fi

needed=()
if ! command -v java > /dev/null; then needed+=(default-jre-headless); fi
if ! command -v mvn > /dev/null; then needed+=(maven); fi
if [ "${#needed[@]}" -gt 0 ]; then
  if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "not run: get_kafka: needs apt-get and root, or java and mvn on PATH"
    exit 0
  fi
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${needed[@]}"; } > /dev/null; then
    echo "not run: get_kafka: apt-get could not install ${needed[*]}"
    exit 0
  fi
fi

mkdir -p "$place"
# A folder of its own, so that two runs at once never share a half-filled one.
filled=$(mktemp -d "$place/libs.XXXXXX")
trap 'rm -rf "$filled"' EXIT
if ! mvn -q -B -f "$pom" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$PWD/$filled"; then
  echo "not run: get_kafka: Maven could not fetch what $pom names"
  exit 0
fi
rm -rf "$place/libs" && mv "$filled" "$place/libs" && cp "$pom" "$place/pom.xml"
