-- Make a job fail for good: the job gets no further attempt. See wire format 5.8. This script does not fetch the
-- next job: the worker does that in its next step.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] now, epoch ms         ARGV[2] job id          ARGV[3] lock token
-- ARGV[4] failed reason         ARGV[5] stack traces, JSON array
-- ARGV[6] attempts allowed      ARGV[7] keep rule "count|age s|limit", see lib/settle.lua
-- ARGV[8] minutes of metrics kept, or ""
-- ARGV[9] attempts made, this one included   ARGV[10] deduplication id, or ""
--
-- Answers 0; or, if the script could not make the job fail, a code of wire format 5 or the text of an error.
--@include settle

local base = KEYS[1]
local now, id, token, reason, stacktrace, attempts, keep, metrics_minutes, attempts_made, dedup_id
  = unpack(ARGV)
local group = {token = token, stacktrace = stacktrace, attempts = tonumber(attempts),
  keep = parse_keep(keep), attempts_made = attempts_made, dedup_id = dedup_id}
local code = settle(base, now, "failed", {id}, {reason}, {group}, tonumber(metrics_minutes))[1] or 0
-- As in BullMQ, this event is not written if a job is delayed or the queue is paused (5.8, step 16).
if code == 0 and redis.call("EXISTS", base .. "wait", base .. "active",
    base .. "prioritized", base .. "delayed") == 0
    and redis.call("HEXISTS", base .. "meta", "paused") == 0 then
  emit(base, "drained")
end
return code
