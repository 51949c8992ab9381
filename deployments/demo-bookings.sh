#!/bin/sh
# Fills an empty store with invented bookings of the last 14 months, and trains a first champion on them, so that a new
# stack has something to show. Runs once: afterwards the home says that it was here.
set -eu
home=${CANCELLATIONS_HOME:?names the home}
if [ -e "$home/demo-bookings" ]; then
    echo "the demo's bookings are loaded already"
    exit 0
fi
bookings=$(mktemp -d)/bookings.parquet
cancellations simulate "$bookings" --from "$(date -d "${CANCELLATIONS_AS_OF:-today} -420 days" +%F)" --days 420 --scale 0.25
cancellations ingest "$bookings"
cancellations retrain
cancellations score
touch "$home/demo-bookings"
