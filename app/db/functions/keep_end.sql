-- Keeps what reports of usage count of a video whose row is deleted.
create or replace function gateway_keep_end() returns trigger language plpgsql as $$
begin
  insert into deleted_videos (id, provider, error_code, duration_s)
  values (old.id, old.provider, old.error_code, greatest(0, extract(epoch from old.ended_at - old.created_at)))
  on conflict (id) do nothing;
  return null;
end $$;

create or replace trigger keep_end after delete on videos for each row when (old.ended_at is not null)
execute function gateway_keep_end();
