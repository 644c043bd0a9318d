-- Invalidates the API-key cache of every process: a notice for each change of a key or a project.
create or replace function gateway_notify_keys() returns trigger language plpgsql as $$
begin
  perform pg_notify('gateway_keys', old.id);
  return null;
end $$;

create or replace trigger notify_keys after update or delete on keys for each row
execute function gateway_notify_keys();

create or replace trigger notify_keys after update or delete on projects for each row
execute function gateway_notify_keys();
