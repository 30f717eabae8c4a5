-- What operators look for among the deliveries of everybody.
create index deliveries_dead on deliveries (id desc) where state = 'dead';
