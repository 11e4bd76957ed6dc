-- A worker's step: settle the jobs that it has completed, and fetch new ones. Wire format 5.8, 5.6.
--
-- KEYS[1] the queue's key prefix with its last colon, e.g. "bull:q:"
-- ARGV[1] now, epoch ms                  ARGV[2] lock token for the jobs fetched
-- ARGV[3] lock TTL, ms                   ARGV[4] how many jobs to fetch at most, 0 to 250
-- ARGV[5] ignored if the queue has no global concurrency. Else each completed job frees a place, and ARGV[5] is the
--         maximum number of these places that this worker may fill. The worker that has waited longest gets the
--         others.
-- ARGV[6] worker name, or ""             ARGV[7] maximum of the worker's own rate limit, jobs, or ""
-- ARGV[8] that limit's window, ms, or "" ARGV[9] minutes of metrics kept, or ""
-- ARGV[10] how many groups the completed jobs form; then six values for each group, the same for all its jobs:
--          lock token, keep rule "count|age s|limit", attempts made (this one included), deduplication id or "",
--          "1" if the jobs had only the usual fields when they were fetched or "", how many jobs the group has
-- then two values for each completed job, at most 250, one group after the other: id, return value as JSON
--
-- Answers {codes, jobs, reason, ms}. codes: position, code, position, code … for jobs that did not complete.
-- Positions count from 1; a code is one of wire format 5, or the text of an error. jobs, reason and ms: the
-- answer of fetch, see lib/fetch.lua. If jobs were settled and the fetch failed, answers {codes, {}, "failed",
-- the text of the error}.
--@include settle
--@include fetch

local base, now, meta = KEYS[1], ARGV[1], read_meta(KEYS[1])
local ids, values, groups, count = {}, {}, {}, 0
-- A fetch adds processedOn, ats and, if the worker has a name, pb to the usual six fields.
local usual_fields = ARGV[6] == "" and 8 or 9
local at = 11 + 6 * ARGV[10]
for first = 11, at - 1, 6 do
  local group = {token = ARGV[first], keep = parse_keep(ARGV[first + 1]), attempts_made = ARGV[first + 2],
    dedup_id = ARGV[first + 3], fields = ARGV[first + 4] == "1" and usual_fields}
  for i = count + 1, count + ARGV[first + 5] do
    ids[i], values[i], groups[i] = ARGV[at], ARGV[at + 1], group
    at = at + 2
  end
  count = #ids
end

local codes, refused = {}, 0
if count > 0 then
  local why = settle(base, now, "completed", ids, values, groups, tonumber(ARGV[9]), meta.max_len)
  for i = 1, next(why) and count or 0 do
    if why[i] then
      codes[#codes + 1] = i
      codes[#codes + 1] = why[i]
      if why[i] == CODES.children or why[i] == CODES.failed_children then
        refused = refused + 1
      end
    end
  end
end

-- If a job must not complete because of its children, the worker must still fail the job. Until then, the job
-- takes a place in the worker, so this call fetches one job less.
local wanted = tonumber(ARGV[4]) - refused
local fetched = {{}, "", 0}
if wanted > 0 then
  local is_done
  local kept = count > 0 and tonumber(ARGV[5]) or nil
  is_done, fetched = pcall(fetch, base, now, meta, ARGV[2], ARGV[3], wanted, ARGV[6], tonumber(ARGV[7]),
    tonumber(ARGV[8]), kept)
  if not is_done then
    local text = type(fetched) == "table" and fetched.err or tostring(fetched)
    if count == 0 then
      return redis.error_reply(text)
    end
    -- The jobs above are already settled, so the call must not fail.
    fetched = {{}, "failed", text}
  end
end
-- Whether the queue may count as drained. After a fetch: only if it answered "empty", which means that no job is
-- delayed either. Without a fetch: always, because then delayed jobs do not matter (5.8 step 16).
local is_idle = wanted <= 0 or fetched[2] == "empty"
if count > 0 and is_idle and #fetched[1] == 0
    and redis.call("EXISTS", base .. "wait", base .. "active", base .. "prioritized") == 0 then
  emit(base, "drained")
end
-- If this call fetched fewer jobs (two values each) than it was given to settle, places are free: wake the worker
-- that has waited longest.
if #fetched[1] < 2 * count and meta.concurrency
    and redis.call("EXISTS", base .. "wait", base .. "prioritized") > 0 then
  seldom().wake(base)
end
return {codes, fetched[1], fetched[2], fetched[3]}
