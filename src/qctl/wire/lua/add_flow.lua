-- Add a tree of jobs, all or none of it seen by others. Wire format 5.4, as BullMQ 6 does it. As
-- long as the tree is large: it cannot be cut.
--
-- KEYS[1], KEYS[2] … for each node the key prefix of its queue with the last colon, e.g. "bull:q:";
--   a parent comes before its children; one key more, see QueueKeys.whole
-- ARGV[1] now, epoch ms, then for each node ten:
--   id, name, data as JSON, opts as JSON, timestamp ms or "" for now, delay ms, priority,
--   "1" to run next (lifo) or "", "1" if it has children or "",
--   and what only some nodes have: "" or JSON {parent_key, parent, dedup}
--
-- Answers for each node its id, or -5 (no such parent) or -7 (a job of another parent): then it was
-- not added.
--@include adding

local now_text = ARGV[1]
local now = tonumber(now_text)
local answers, parents, is_known = {}, {}, {}
for i = 1, #KEYS - 1 do
  local base = KEYS[i]
  local at = 2 + (i - 1) * 10
  local job = with_rest({id = ARGV[at], name = ARGV[at + 1], data = ARGV[at + 2],
    opts = ARGV[at + 3], timestamp = ARGV[at + 4] ~= "" and ARGV[at + 4] or now_text,
    delay = ARGV[at + 5], priority = ARGV[at + 6], lifo = ARGV[at + 7] == "1",
    has_children = ARGV[at + 8] == "1"}, ARGV[at + 9])
  local key = base .. job.id
  if job.has_children and not is_known[key] then
    is_known[key] = true
    parents[#parents + 1] = {base = base, id = job.id, key = key}
  end
  answers[i] = add_job(base, job, now, true)
end

-- Children that had completed before hold nobody up. A parent that did not get all of its children
-- waits, so that it never runs without them.
for _, parent in ipairs(parents) do
  if redis.call("HDEL", parent.key, "flowAttachmentFailed") == 0 then
    release_parent_if_done(parent, now)
  end
end
return answers
