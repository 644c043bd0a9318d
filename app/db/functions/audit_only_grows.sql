-- Refuses UPDATE, DELETE and TRUNCATE on the audit log: it is append-only.
create or replace function gateway_audit_only_grows() returns trigger language plpgsql as $$
begin
  raise exception 'the audit log is only ever added to';
end $$;

create or replace trigger only_grows before update or delete or truncate on audit for each statement
execute function gateway_audit_only_grows();
