-- Make a scheduler, or change it together with its pending job. Wire format 6.3. Unlike BullMQ 6, this
-- also finds the pending job of a paused queue, so there never are two.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] scheduler id   ARGV[2] now, epoch ms   ARGV[3] interval ms, or "" for a cron pattern
-- ARGV[4] the pattern's next times, epoch ms, separated by spaces, or ""   ARGV[5] offset ms or ""
-- ARGV[6] start, epoch ms, or ""   ARGV[7] the job's name   ARGV[8] its data as JSON
-- ARGV[9] its priority   ARGV[10] "1" to run next (lifo) or ""
-- ARGV[11] the job's opts as JSON without the last brace
-- ARGV[12] … the other fields of the scheduler's record: name, value, name, value …
--
-- The pattern's next job may exist already, because it was promoted: if it has ended, the new job replaces it;
-- if it has not, the new job gets the next time after it.
--
-- Answers {job id, delay in ms}; or -10 if jobs exist for all of the pattern's next times, or -11 for the
-- next 32 times of an interval, and nothing was changed.
--@include scheduler_slots
--@include deleting

local base, sid, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
local every, start = tonumber(ARGV[3]), tonumber(ARGV[6])
local schedule, record = base .. "repeat", base .. "repeat:" .. sid
local old = redis.call("HMGET", record, "every", "offset", "ic")
local prev = tonumber(redis.call("ZSCORE", schedule, sid) or "")

-- Answers the set or list that the pending job can be taken from, and the command for that; nil if the job is
-- active or gone. A scheduler's job has no parent, children or deduplication (P17).
local function place_of_pending(id)
  if redis.call("EXISTS", base .. id) == 0 then
    return nil
  end
  for _, set in ipairs({"delayed", "prioritized"}) do
    if redis.call("ZSCORE", base .. set, id) then
      return set, "ZREM"
    end
  end
  for _, list in ipairs({"wait", "paused"}) do
    if redis.call("LPOS", base .. list, id) then
      return list, "LREM"
    end
  end
  return nil
end

local slot, offset, later_slots = nil, 0, {}
for time in string.gmatch(ARGV[4], "%d+") do
  later_slots[#later_slots + 1] = tonumber(time)
end
if not every then
  slot = table.remove(later_slots, 1)
else
  local known = tonumber(old[1] or "") == every and prev or nil
  slot, offset = next_slot(known, every, now, tonumber(ARGV[5]) or 0, start)
end
local pending = prev and iteration_id(sid, prev)
local place, remove
if pending then
  place, remove = place_of_pending(pending)
end
if place and every and tonumber(old[1] or "") == every then
  slot = prev
end

-- Answers the key of the set of finished jobs that the job is in, or nil.
local function ended_in(id)
  for _, set in ipairs({"completed", "failed"}) do
    if redis.call("ZSCORE", base .. set, id) then
      return base .. set
    end
  end
end

local function is_taken(id)
  return id ~= (place and pending) and redis.call("EXISTS", base .. id) == 1
    and (every or not ended_in(id))
end
local tries = 1
while is_taken(iteration_id(sid, slot)) do
  slot, tries = every and slot + every or table.remove(later_slots, 1), tries + 1
  if not slot then
    return -10
  end
  if tries > 32 then
    return -11
  end
end
local ended = ended_in(iteration_id(sid, slot))
if ended then
  remove_finished(base, ended, {iteration_id(sid, slot)})
end

if place then
  if remove == "ZREM" then
    redis.call("ZREM", base .. place, pending)
  else
    redis.call("LREM", base .. place, 1, pending)
  end
  delete_job_keys(base .. pending)
end
if ARGV[5] ~= "" then
  offset = ARGV[5]
elseif place and old[2] then
  offset = old[2]
end
redis.call("ZADD", schedule, string.format("%.0f", slot), sid)
redis.call("DEL", record)
redis.call("HSET", record, "name", ARGV[7], "offset", string.format("%.0f", tonumber(offset) or 0),
  "ic", old[3] or 1)
for i = 12, #ARGV, 2 do
  redis.call("HSET", record, ARGV[i], ARGV[i + 1])
end
return {store_iteration(base, sid, slot, now, ARGV[7], ARGV[8], ARGV[11], ARGV[9],
  ARGV[10] == "1", not every)}
