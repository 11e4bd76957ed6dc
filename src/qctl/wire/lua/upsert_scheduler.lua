-- Make a scheduler, or change it together with its pending job. Wire format 6.3. Unlike BullMQ 6, this script
-- also finds the pending job in the paused list, so that a scheduler never has two pending jobs.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] scheduler id   ARGV[2] now, epoch ms   ARGV[3] interval ms, or "" for a cron pattern
-- ARGV[4] the pattern's next times, epoch ms, separated by spaces, or ""   ARGV[5] offset ms or ""
-- ARGV[6] start, epoch ms, or ""   ARGV[7] the job's name   ARGV[8] its data as JSON
-- ARGV[9] its priority   ARGV[10] "1" to run next (lifo) or ""
-- ARGV[11] the job's opts as JSON without the last brace
-- ARGV[12] "1" to keep what is unchanged, or ""
-- ARGV[13] the Python package whose code defines the scheduler, or ""
-- ARGV[14] … the other fields of the scheduler's record: name, value, name, value …
--
-- With ARGV[12], a pending job that is not active keeps its time if the pattern has not changed: else a job that
-- is already due would be replaced by a job for the pattern's next time. If no field has changed, the job stays.
--
-- The job for the pattern's next time may exist already, because it was promoted. If that job has ended, the
-- new job replaces it; else the new job gets the following time of the pattern.
--
-- Answers {job id, delay in ms}; or, if nothing was changed, -10 (jobs exist for all times in ARGV[4]) or -11
-- (jobs exist for the next 32 times of the interval).
--@include scheduler_slots
--@include deleting
--@include find

local base, scheduler, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
local every, start = tonumber(ARGV[3]), tonumber(ARGV[6])
local record, pending_at = base .. "repeat:" .. scheduler, pending_slot(base, scheduler)
local old = redis.call("HMGET", record, "every", "offset", "ic", "pattern", "tz")
local is_same_interval = every and tonumber(old[1] or "") == every

local slot, offset, later_slots = nil, 0, {}
for time in string.gmatch(ARGV[4], "%d+") do
  later_slots[#later_slots + 1] = tonumber(time)
end
if every then
  local last = is_same_interval and pending_at or nil
  slot, offset = next_slot(last, every, now, tonumber(ARGV[5]) or 0, start)
else
  slot = table.remove(later_slots, 1)
end
-- The set or the list that has the pending job; both are nil if that job is active or gone. A scheduler's job
-- has no parent, children or deduplication (P17), so it is enough to delete its keys.
local pending = pending_at and iteration_id(scheduler, pending_at)
local set, list
if pending and redis.call("EXISTS", base .. pending) == 1 then
  set = find_in_sets(base, {"delayed", "prioritized"}, pending)
  list = not set and find_in_lists(base, {"wait", "paused"}, pending)
end
local is_replaced = set or list

local given = {name = ARGV[7], offset = ARGV[5] ~= "" and ARGV[5] or nil}
for i = 14, #ARGV, 2 do
  given[ARGV[i]] = ARGV[i + 1]
end

-- Fields that a scheduler's record may have besides those in "given". If a scheduler has no data, BullMQ 5 also
-- stores data "{}".
local added = {ic = true, offset = true, qctl = true}

local function is_unchanged()
  local stored, count = redis.call("HGETALL", record), 0
  for i = 1, #stored, 2 do
    local field, value = stored[i], stored[i + 1]
    if given[field] == value then
      count = count + 1
    elseif given[field] or not added[field] and not (field == "data" and value == "{}") then
      return false
    end
  end
  for _ in pairs(given) do
    count = count - 1
  end
  return count == 0
end
local function mark()
  if ARGV[13] ~= "" then
    redis.call("HSET", record, "qctl", ARGV[13])
  end
end

local keeps = ARGV[12] == "1"
if keeps and is_replaced and is_unchanged() then
  mark()
  return {pending, ""}
end

local is_same_pattern = not every and old[4] == given.pattern and (old[5] or nil) == given.tz
if is_replaced and (is_same_interval or keeps and is_same_pattern) then
  slot = pending_at
end

-- Answers the set of finished jobs that the job is in, or nil.
local function ended_in(id)
  return find_in_sets(base, {"completed", "failed"}, id)
end

-- Whether another job has this id. With a cron pattern, an ended job does not count: the new job replaces it.
local function is_taken(id)
  return not (is_replaced and id == pending) and redis.call("EXISTS", base .. id) == 1
    and (every or not ended_in(id))
end
local tries = 1
while is_taken(iteration_id(scheduler, slot)) do
  slot, tries = every and slot + every or table.remove(later_slots, 1), tries + 1
  if not slot then
    return -10
  end
  if tries > 32 then
    return -11
  end
end
local ended = ended_in(iteration_id(scheduler, slot))
if ended then
  remove_finished(base, ended, {iteration_id(scheduler, slot)})
end

if set then
  redis.call("ZREM", base .. set, pending)
elseif list then
  redis.call("LREM", base .. list, 1, pending)
end
if is_replaced then
  delete_job_keys(base .. pending)
end
if ARGV[5] ~= "" then
  offset = ARGV[5]
elseif is_replaced and old[2] then
  offset = old[2]
end
redis.call("ZADD", base .. "repeat", string.format("%.0f", slot), scheduler)
redis.call("DEL", record)
redis.call("HSET", record, "name", ARGV[7], "offset", string.format("%.0f", tonumber(offset) or 0),
  "ic", old[3] or 1)
mark()
for i = 14, #ARGV, 2 do
  redis.call("HSET", record, ARGV[i], ARGV[i + 1])
end
return {store_iteration(base, scheduler, slot, now, ARGV[7], ARGV[8], ARGV[11], ARGV[9],
  ARGV[10] == "1", not every)}
