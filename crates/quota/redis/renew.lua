-- Keeps the slots of a running reservation. KEYS: reservation, one per slot limit. ARGV: now (tests only), lease time, holder, per slot limit
-- its number in the reservation. Answers {1, now}
local lease_time, holder = tonumber(ARGV[2]), ARGV[3]
local held, until_time = held_by(KEYS[1])
if held and held ~= 'done' then
    for index = 2, #KEYS do
        local slots = held[tonumber(ARGV[index + 2])] or 0
        if slots > 0 then
            lease(KEYS[index], holder, slots, math.min(now + lease_time, until_time), lease_time)
        end
    end
end
return {1, now}
