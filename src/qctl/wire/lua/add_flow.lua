-- Add a flow, which is a tree of jobs. Wire format 5.4, as in BullMQ 6. All jobs are added in one call, so
-- other clients see all jobs of the flow or none; for a large flow, the call takes long.
--
-- KEYS[1], KEYS[2] … for each job, its queue's key prefix with the last colon, e.g. "bull:q:";
--   parents come before their children. The last key belongs to no job: see QueueKeys.whole
-- ARGV[1] now, epoch ms; then ten values for each job:
--   id, name, data as JSON, "1" if it has children or "", then an option set as in add.lua
--
-- Answers one item for each job: its id if it was added, else the item that add.lua answers for a job that
-- was not added.
--@include add_job

local now_text = ARGV[1]
local now = tonumber(now_text)
local answers, parents, is_known = {}, {}, {}
for i = 1, #KEYS - 1 do
  local base = KEYS[i]
  local at = 2 + (i - 1) * 10
  local job = with_rare_options({id = ARGV[at], name = ARGV[at + 1], data = ARGV[at + 2],
    has_children = ARGV[at + 3] == "1", opts = ARGV[at + 4],
    timestamp = ARGV[at + 5] ~= "" and ARGV[at + 5] or now_text, delay = ARGV[at + 6],
    priority = ARGV[at + 7], lifo = ARGV[at + 8] == "1"}, ARGV[at + 9])
  local key = base .. job.id
  if job.has_children and not is_known[key] then
    is_known[key] = true
    parents[#parents + 1] = {base = base, id = job.id, key = key}
  end
  answers[i] = add_job(base, job, now, true)
end

-- Releases each parent whose children had all completed before this call. A parent that did not get all of
-- its children (add_job has set flowAttachmentFailed) keeps waiting, so that it never runs without them.
for _, parent in ipairs(parents) do
  if redis.call("HDEL", parent.key, "flowAttachmentFailed") == 0 then
    release_parent_if_done(parent, now)
  end
end
return answers
