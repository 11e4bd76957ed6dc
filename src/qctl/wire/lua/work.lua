-- A worker's step: settle the jobs that it has completed, and fetch new ones. Wire format 5.6, 5.8.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] now, epoch ms                  ARGV[2] lock token for the jobs fetched
-- ARGV[3] lock TTL, ms                   ARGV[4] most jobs to fetch, 0 to 250
-- ARGV[5] worker name, or ""             ARGV[6] worker rate limit: jobs, or ""
-- ARGV[7] and its window in ms, or ""    ARGV[8] most metrics minutes, or ""
-- ARGV[9] number of keep rules k, then k rules "count|age s|limit" for completed jobs
-- then for each completed job, at most 250: id, token, return value as JSON, number of its keep rule,
-- attempts made with this one, deduplication id or ""
--
-- Answers {codes, jobs, reason, ms}: a code for each job that did not complete as position, code,
-- position, code … (positions from 1); then what lib/fetch.lua answers.
--@include settle
--@include fetch

local base, now = KEYS[1], tonumber(ARGV[1])
local rules = {}
for i = 1, tonumber(ARGV[9]) do
  rules[i] = parse_keep(ARGV[9 + i])
end
local completed = {}
for i = 10 + #rules, #ARGV, 6 do
  completed[#completed + 1] = {id = ARGV[i], token = ARGV[i + 1], value = ARGV[i + 2],
    keep = rules[tonumber(ARGV[i + 3])], attempts_made = ARGV[i + 4], dedup_id = ARGV[i + 5],
    key = false, code = nil}
end

local codes = {}
if #completed > 0 then
  settle(base, now, "completed", completed, tonumber(ARGV[8]))
  for i, job in ipairs(completed) do
    if job.code ~= 0 then
      codes[#codes + 1] = i
      codes[#codes + 1] = job.code
    end
  end
end

local wanted = tonumber(ARGV[4])
local fetched = {{}, "", 0}
if wanted > 0 then
  fetched = fetch(base, now, ARGV[2], ARGV[3], wanted, ARGV[5], tonumber(ARGV[6]),
    tonumber(ARGV[7]))
end
local is_idle = wanted == 0 or fetched[2] == "empty"
if #completed > 0 and is_idle and #fetched[1] == 0
    and redis.call("EXISTS", base .. "wait", base .. "active", base .. "prioritized") == 0 then
  emit(base .. "events", base .. "meta", "event", "drained")
end
return {codes, fetched[1], fetched[2], fetched[3]}
