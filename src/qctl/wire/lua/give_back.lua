-- Jobs go back where they came from, to run next; no attempt is counted. Wire format 5.12.
-- Unlike BullMQ's, it wakes a worker for a prioritised job too.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1], ARGV[2] … id, lock token; in pairs, at most 250; the last runs first
--
-- Answers {ms for which the queue's rate limit still holds or 0, a code for each job (0 when it went
-- back, else one of wire format 5)}.
--@include placing
--@include leave

local base = KEYS[1]
local codes = {}
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local code = leave_active_alone(base, id, ARGV[i + 1])
  if code == 0 then
    local priority = tonumber(redis.call("HGET", base .. id, "priority") or "0") or 0
    if priority > 0 then
      redis.call("ZADD", base .. "prioritized", string.format("%.0f", priority * 4294967296), id)
    else
      redis.call("RPUSH", target_list(base), id)
    end
    emit(base .. "events", base .. "meta", "event", "waiting", "jobId", id, "prev", "active")
  end
  codes[#codes + 1] = code
end
wake(base)
return {math.max(redis.call("PTTL", base .. "limiter"), 0), codes}
