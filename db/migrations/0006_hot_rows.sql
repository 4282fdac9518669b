-- Rows that a fold writes again and again stay on their page: no index entry for each new version, and less to vacuum.

-- A student's standings are few and lie side by side in the primary key; the index had to be written for each change.
drop index standing_by_student_change;

-- Room on each page for the next version. It holds for rows written from now on; the others move there as they change.
alter table standing set (fillfactor = 70);
alter table work set (fillfactor = 80);
alter table view_state set (fillfactor = 50);
alter table student_state set (fillfactor = 50);
alter table classroom_state set (fillfactor = 50);
alter table risk_flag set (fillfactor = 70);
