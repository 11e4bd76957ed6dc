-- The stalled check. Jobs that the last check has marked, and that have no lock, are put back and run next.
-- Then all active jobs are marked for the next check. Wire format 5.13.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] now, epoch ms   ARGV[2] interval between checks, ms   ARGV[3] how many stalls a job may have
-- ARGV[4] the failure reason of a job that stalls too often
--
-- One call checks at most 1,000 of the jobs that the last check has marked.
-- Answers {ids, left}: ids of the jobs that were put back; left is 1 if the last check had marked more jobs than
-- this call has checked, otherwise 0.
-- Answers {{}, -1} if a worker has made the check within the interval.
--@include ready
--@include events
--@include is_job
--@include count_stall

local base = KEYS[1]
local now, interval_ms, max_stalls, reason = unpack(ARGV)
if not redis.call("SET", base .. "stalled-check", now, "PX", interval_ms, "NX") then
  return {{}, -1}
end
trim_events(base)
local stalled = {}
local marked = redis.call("SPOP", base .. "stalled", 1000)
for _, id in ipairs(marked) do
  if string.sub(id, 1, 2) == "0:" then
    -- A marker of an old BullMQ version, not a job.
    redis.call("LREM", base .. "active", 1, id)
  elseif redis.call("EXISTS", base .. id .. ":lock") == 0
      and redis.call("LREM", base .. "active", 1, id) == 1 and is_job(base .. id) then
    count_stall(base, base .. id, tonumber(max_stalls), reason)
    redis.call("RPUSH", target_list(base), id)
    emit(base, "waiting", "jobId", id, "prev", "active")
    emit(base, "stalled", "jobId", id)
    stalled[#stalled + 1] = id
  end
end
if #stalled > 0 then
  wake(base)
end
local left = redis.call("SCARD", base .. "stalled")
local active = redis.call("LRANGE", base .. "active", 0, -1)
for i = 1, #active, 1000 do
  redis.call("SADD", base .. "stalled", unpack(active, i, math.min(i + 999, #active)))
end
return {stalled, left > 0 and 1 or 0}
