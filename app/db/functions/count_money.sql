-- Adds each ledger entry to the meters of its budgets and balance, in the transaction that writes the entry, and refuses
-- a reservation that one of them does not cover: two concurrent creates cannot both take the last cent.
-- Raises VG402 with a JSON detail: `what` is price, key, project or balance; amounts are in micros.
create or replace function gateway_add_to_meter(
  scope_ text, month_ date, spent bigint, budget bigint, what text, checked boolean
) returns void language plpgsql as $$
declare
  total bigint;
begin
  insert into meters as meter (scope, month, spent_micros) values (scope_, month_, spent)
  on conflict (scope, month) do update set spent_micros = meter.spent_micros + excluded.spent_micros
  returning meter.spent_micros into total;
  if checked and spent > 0 and total > budget then
    raise exception 'not covered' using errcode = 'VG402', detail = json_build_object(
      'what', what, 'budget_micros', budget, 'left_micros', budget - (total - spent), 'needed_micros', spent);
  end if;
end $$;

create or replace function gateway_count_money() returns trigger language plpgsql as $$
declare
  key_budget bigint;
  project projects%rowtype;
  spent bigint := -coalesce(new.amount_micros, 0);
  this_month date := date_trunc('month', new.day);
  checked boolean := new.kind = 'reserve';
begin
  if new.kind <> 'credit' and new.key_id like 'key\_%' then
    select monthly_budget_micros into key_budget from keys where id = new.key_id;
  end if;
  select * into project from projects where id = new.project_id;
  if checked and new.amount_micros is null
    and (key_budget is not null or project.monthly_budget_micros is not null or project.billing = 'prepaid') then
    raise exception 'no price' using errcode = 'VG402', detail = json_build_object('what', 'price');
  end if;
  if key_budget is not null then
    perform gateway_add_to_meter(new.key_id, this_month, spent, key_budget, 'key', checked);
  end if;
  if new.kind <> 'credit' and project.monthly_budget_micros is not null then
    perform gateway_add_to_meter(
      'project:' || new.project_id, this_month, spent, project.monthly_budget_micros, 'project', checked);
  end if;
  if project.billing = 'prepaid' then
    perform gateway_add_to_meter('project:' || new.project_id, '0001-01-01', spent, 0, 'balance', checked);
  end if;
  return null;
end $$;

create or replace trigger count_money after insert on ledger for each row execute function gateway_count_money();
