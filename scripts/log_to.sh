# Sourced at the beginning of a job, with the path of its log: what the job says goes there. Snakemake removes a job's log ahead of
# its next attempt; a second name for the same file, attempts/NAME.TIME.PROCESS.log beside it, stays.
mkdir -p "$(dirname "$1")/attempts"
rm -f "$1"
: > "$1"
ln "$1" "$(dirname "$1")/attempts/$(basename "$1" .log).$(date -u +%Y-%m-%dT%H%M%SZ).$$.log" 2> /dev/null || true
exec >> "$1" 2>&1
