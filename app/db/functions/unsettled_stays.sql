-- Refuses to delete a video whose money is still held.
create or replace function gateway_unsettled_stays() returns trigger language plpgsql as $$
begin
  raise exception 'the money of % is not settled', old.id;
end $$;

create or replace trigger unsettled_stays before delete on videos for each row when (old.settlement = 'held')
execute function gateway_unsettled_stays();
