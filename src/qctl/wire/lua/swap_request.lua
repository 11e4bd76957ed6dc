-- Answer or withdraw a request to cancel a job, unless somebody has changed the request.
--
-- KEYS[1] the hash of requests (QueueKeys.cancel_requests), and no other key
-- ARGV[1] job id   ARGV[2] the request as it was seen   ARGV[3] the answer, or "" to delete the request
--
-- Answers 1, or 0 if the request is gone or has changed.

if redis.call("HGET", KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
if ARGV[3] == "" then
  redis.call("HDEL", KEYS[1], ARGV[1])
else
  redis.call("HSET", KEYS[1], ARGV[1], ARGV[3])
end
return 1
