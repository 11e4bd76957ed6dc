-- Add jobs to one queue, in the order given. Wire format 5.1-5.3 and 5.5.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] now, epoch ms
-- ARGV[2] number of option sets; then six values for each set:
--   opts as JSON, timestamp ms or "" for now, delay ms, priority, "1" to run next (lifo) or "",
--   rare options as JSON {id, parent_key, parent, dedup} or ""
-- then three values for each job: which option set it has (1 for the first set), name, data as JSON;
--   at most 250 jobs
--
-- Answers one item for each job: its id if it was added; {id of the existing job, "exists" or "deduplicated"}
-- if it was not added because of an existing job; -5 if its parent does not exist; or -7 if the job exists and
-- has another parent.
--@include add_job

local base, now_text = KEYS[1], ARGV[1]
local now, events = tonumber(now_text), base .. "events"
local set_count = tonumber(ARGV[2])
local sets = {}
for i = 1, set_count do
  local at = 3 + (i - 1) * 6
  local set = {opts = ARGV[at], delay = ARGV[at + 2], priority = ARGV[at + 3],
    lifo = ARGV[at + 4] == "1", rare = ARGV[at + 5]}
  set.timestamp = ARGV[at + 1] ~= "" and ARGV[at + 1] or now_text
  -- A plain job is simply pushed to the head of the list of ready jobs.
  set.is_plain = set.delay == "0" and set.priority == "0" and not set.lifo and set.rare == ""
  sets[tostring(i)] = set
end

-- Plain jobs that follow each other share one INCRBY, one LPUSH and one marker.
local function add_plain(first, last, ids)
  trim_events(base)
  local count = (last - first) / 3 + 1
  local number = redis.call("INCRBY", base .. "id", count) - count
  local fresh = {}
  for at = first, last, 3 do
    number = number + 1
    local id, name, set = string.format("%.0f", number), ARGV[at + 1], sets[ARGV[at]]
    redis.call("HSET", base .. id, "name", name, "data", ARGV[at + 2], "opts", set.opts,
      "timestamp", set.timestamp, "delay", "0", "priority", "0")
    redis.call("XADD", events, "*", "event", "added", "jobId", id, "name", name)
    redis.call("XADD", events, "*", "event", "waiting", "jobId", id)
    fresh[#fresh + 1] = id
    ids[#ids + 1] = id
  end
  redis.call("LPUSH", target_list(base), unpack(fresh))
  wake(base)
end

local answers = {}
local at = 3 + set_count * 6
while at <= #ARGV do
  local set = sets[ARGV[at]]
  if set.is_plain then
    local last = at
    while last + 3 <= #ARGV and sets[ARGV[last + 3]].is_plain do
      last = last + 3
    end
    add_plain(at, last, answers)
    at = last + 3
  else
    local job = with_rare_options({name = ARGV[at + 1], data = ARGV[at + 2], opts = set.opts,
      timestamp = set.timestamp, delay = set.delay, priority = set.priority, lifo = set.lifo},
      set.rare)
    local id, stands_for = add_job(base, job, now, false)
    answers[#answers + 1] = stands_for and {id, stands_for} or id
    at = at + 3
  end
end
return answers
