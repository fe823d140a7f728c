-- Replaces what was held by what was used, once.
-- KEYS: reservation, one per limit. ARGV: now (tests only), expiry of the reservation, slack of the marker, holder, per limit: kind used furthest end
-- Answers {what, now}: 1 applied, 2 settled before, 3 the reservation was lost and the use was added, 4 it had expired as consumed
local expires, slack, holder = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local held = held_by(KEYS[1])
if held == 'done' then
    return {2, now}
end
if not held and expires <= now then
    return {4, now}
end
for index = 1, #KEYS - 1 do
    local at = 5 + (index - 1) * 4
    local kind, used = ARGV[at], tonumber(ARGV[at + 1])
    local cost = held and held[index] or 0
    if kind == 's' then
        free(KEYS[index + 1], holder, 0, cost)
    else
        correct(kind, KEYS[index + 1], used - cost, tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]))
    end
end
hold(KEYS[1], expires + slack, 'done')
return {held and 1 or 3, now}
