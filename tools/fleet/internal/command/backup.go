package command

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"a3os.app/tools/fleet/internal/plane"
	"a3os.app/tools/internal/show"
)

const backupHelp = `backup copies sets while they work: the database as of one moment, stores, and the keys without which neither could be read, encrypted under
a key of each set's own, with a signed manifest, into A3_BACKUP_DIR. Each backup is then restored for real, into a throwaway server, every row
counted and the audit log verified; one that can't be restored is a failure. A running plane does all of this by itself every
A3_BACKUP_EVERY.

Who destroys a set's backup key destroys its backups. "fleet backup recovery-key FILE" makes a key that opens them after this machine is lost;
from then on a copy of each backup key, sealed to it, lies beside the backups.`

func (a *app) backupCommand() *cobra.Command {
	var tenants []string
	var all, untried bool
	var keep int
	c := &cobra.Command{Use: "backup", Short: "Back tenants up, and try each backup out", Long: backupHelp, Args: exactly(),
		Example: "  fleet backup --tenant acme\n  fleet backup --all --keep 14",
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("keep") {
				if err := atLeastOne("--keep", keep, "how many backups of a set are kept"); err != nil {
					return err
				}
			}
			p, err := a.plane()
			if err != nil {
				return err
			}
			if !c.Flags().Changed("keep") {
				up, err := p.BroughtUp()
				if err != nil {
					return err
				}
				keep = up.BackupKeep
			}
			made, err := p.BackUp(c.Context(), tenants, all, !untried, keep)
			if len(made) > 0 {
				if shown := a.backups(made); shown != nil {
					return shown
				}
			}
			return err
		}}
	c.Flags().StringSliceVar(&tenants, "tenant", nil, "tenants, by slug or id; plane is the plane's own registry")
	c.Flags().BoolVar(&all, "all", false, "every tenant, and the plane's own registry")
	c.Flags().BoolVar(&untried, "no-verify", false, "do not try the backups out")
	c.Flags().IntVar(&keep, "keep", 0, "how many backups of a set to keep; what A3_BACKUP_KEEP was at the last fleet plane up when not given")
	var of []string
	list := &cobra.Command{Use: "list", Short: "List the backups that there are", Args: exactly(), RunE: func(*cobra.Command, []string) error {
		p, err := a.plane()
		if err != nil {
			return err
		}
		found, err := p.Backups(of)
		if err != nil {
			return err
		}
		return a.backups(found)
	}}
	list.Flags().StringSliceVar(&of, "tenant", nil, "tenants, by slug or id; all when empty")
	verify := &cobra.Command{Use: "verify BACKUP", Short: "Restore a backup into a throwaway server, and see whether it is whole", Args: exactly("BACKUP"),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			found, err := p.VerifyBackup(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.backups([]plane.BackedUp{*found})
		}}
	recovery := &cobra.Command{Use: "recovery-key FILE", Short: "Make the key that opens backups after this machine is lost", Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			if err := p.RecoveryKey(c.Context(), args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s opens every backup that is made from now on. Take it off this machine, and keep it where two people have to agree to fetch it.\n", args[0])
			return err
		}}
	var noMore bool
	accept := &cobra.Command{Use: "accept-directory DIR", Short: "Keep backups in a directory where another disk or an empty one has taken its place", Args: exactly("DIR"),
		Long: `accept-directory marks DIR as one that this plane's backups are kept in. A directory is marked when the first backup is made in it, and refused from then on
while its mark is gone, for the disk that it is on is not mounted, or another one is. Where that is meant, say so by this. With --gone, DIR is no more, nor what
was in it: nothing is looked for there when a tenant leaves.`,
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			if err := p.AcceptBackups(args[0], noMore); err != nil {
				return err
			}
			if noMore {
				_, err = fmt.Fprintf(a.out, "%s is no directory of this plane's backups any more.\n", args[0])
				return err
			}
			_, err = fmt.Fprintf(a.out, "backups are kept in %s from now on, wherever A3_BACKUP_DIR names it.\n", args[0])
			return err
		}}
	accept.Flags().BoolVar(&noMore, "gone", false, "it is no more, nor what was in it")
	c.AddCommand(list, verify, recovery, accept, a.putBackKeysCommand(), a.newKeyCommand())
	return c
}

func (a *app) putBackKeysCommand() *cobra.Command {
	var from, to, recovery string
	c := &cobra.Command{Use: "put-back-keys --from BACKUP --to TENANT", Short: "Put the files of keys back that are gone, and nothing else", Args: exactly(),
		Long: `put-back-keys takes those files of a set's keys from one of its backups that are not there any more. What is there stays, data among it. Any backup
will do that is younger than the key. The backup key itself is in none: with --recovery-key its sealed copy beside the backups is opened.`,
		Example: `  fleet backup put-back-keys --from 20260901T030000Z-k3f9q2 --to acme`,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			files, err := p.PutBackKeys(c.Context(), from, to, recovery)
			for _, file := range files {
				_, _ = fmt.Fprintf(a.out, "put back: %s\n", show.Text(file))
			}
			if err == nil && len(files) == 0 {
				_, err = fmt.Fprintf(a.out, "nothing of %s is gone that a backup holds: nothing was changed.\n", show.Text(to))
			}
			return err
		}}
	c.Flags().StringVar(&from, "from", "", "backup: its directory, or its name in the list of backups")
	c.Flags().StringVar(&to, "to", "", "tenant, by slug or id, or the word plane for the plane's own")
	c.Flags().StringVar(&recovery, "recovery-key", "", "file of the recovery key, where the backup key is gone")
	for _, name := range []string{"from", "to"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}

func (a *app) newKeyCommand() *cobra.Command {
	r := plane.NewKeysRequest{Actor: "operator"}
	c := &cobra.Command{Use: "new-key TENANT", Short: "Make another key in the place of one that is gone for good", Args: exactly("TENANT"),
		Long: `new-key is for a set one of whose keys is gone, and can't be put back: no copy of its file, and no backup that has it. TENANT is a slug or an id, or the
word plane for the plane's own; --key is a key's name, which is that of its file, or the word root for the root of the set's authority. A key that is there
is never exchanged. What is lost with a key it says, and changes nothing until that is accepted; where the public half alone is gone nothing is. A tenant's
set is stopped, what was given out under its former keys ends, as after a restore, and the tenant's own record says when, by whom and why.

Without --key it is the backup key, which no backup has. Backups of before can't be read any more, but with a recovery key: the sealed copy of their key
stays beside them.`,
		Example: `  fleet backup new-key acme
  fleet backup new-key acme --key kek --accept-loss --reason "Case 4713: the disk was lost before the first backup"
  fleet backup new-key plane --key releases,licences --accept-loss --reason "Case 4713: the disk was lost before the first backup"`,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			if len(r.Keys) == 0 {
				if err := p.NewBackupKey(c.Context(), args[0]); err != nil {
					return err
				}
				_, err = fmt.Fprintf(a.out, "%s has another backup key: make a backup with it now, fleet backup --tenant %s\n", args[0], args[0])
				return err
			}
			r.Of = args[0]
			next, err := p.NewKeys(c.Context(), r)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s has another key, %s. Next:\n  %s\n", show.Text(r.Of), show.Text(strings.Join(r.Keys, ", ")), strings.Join(next, "\n  "))
			return err
		}}
	c.Flags().StringSliceVar(&r.Keys, "key", nil, "keys that are gone, by name; the backup key when not given")
	c.Flags().BoolVar(&r.AcceptLoss, "accept-loss", false, "what the former key sealed or signed may be lost")
	c.Flags().StringVar(&r.Reason, "reason", "", "why, 10 to 500 characters, for the record")
	return c
}

func (a *app) backups(all []plane.BackedUp) error {
	if a.format == "json" {
		return a.json(all)
	}
	var rows [][]string
	for _, b := range all {
		verified, took := "-", "-"
		switch {
		case !b.Verified.IsZero():
			verified, took = fmt.Sprintf("%d rows", b.Rows), seconds(b.RestoreTook)
		case b.Tried:
			verified = "well"
		}
		if b.Unreadable != "" {
			rows = append(rows, []string{b.Slug, b.Name, "-", "-", "-", "can't be read", "-", b.Dir})
			continue
		}
		of := b.Slug
		if b.CopyOf != "" {
			of += ", from " + b.CopyOf
		}
		rows = append(rows, []string{of, b.Name, b.TakenAt.Format(time.RFC3339), megabytes(b.Size), seconds(b.Took), verified, took, b.Dir})
	}
	if err := a.table([]string{"OF", "BACKUP", "AS OF", "SIZE", "TOOK", "RESTORED", "IN", "DIRECTORY"}, rows); err != nil {
		return err
	}
	for _, b := range all {
		if b.Unreadable != "" {
			says := b.Name + " of " + b.Slug + " is damaged, and restores nothing"
			if b.Name == "" {
				says = "which backups of " + b.Slug + " there are can't be seen"
			}
			if _, err := fmt.Fprintf(a.out, "%s: %s\n", says, show.Text(b.Unreadable)); err != nil {
				return err
			}
		}
		if err := a.notHeld(b); err != nil {
			return err
		}
	}
	return nil
}

// notHeld says what of a set is not in its backup.
func (a *app) notHeld(b plane.BackedUp) error {
	if len(b.Elsewhere) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(a.out, "%s of %s holds no %s: the platform keeps them apart, and a restore leaves them as they are.\n", b.Name, b.Slug, strings.Join(b.Elsewhere, ", no "))
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

const restoreHelp = `restore puts a tenant's set back to what it was when a backup was taken: database, stores and keys. The backup is tried out first, in a
throwaway server; nothing is given up for one that can't be restored. It is the tenant's own set that is restored, under its own id: a
backup of another tenant, or of another plane, is refused.

To see what a tenant had beside what it has, or to try a restore, a backup is put into a new tenant that was made for it:

  fleet plan provision --tenant acme-copy --copy-of acme --reason TEXT, and fleet apply HASH
  fleet restore --from BACKUP --to acme-copy --replace --reason TEXT

The copy has an id, keys, logins, a log key and a licence of its own; people, workspaces, what was discovered and the audit log are those of the backup. What
was sealed to the other tenant is not in it: integrations have no credentials there, and run by no schedule. The other tenant isn't touched.

Everybody has to sign in again: sessions, refresh tokens, setup codes and signing keys from before do not work. What was done after the
backup was taken is undone, removals of people among it; the tenant's audit log says as of when, by whom and why, and goes on from there. Who
kept a later checkpoint of the log sees that it was cut short, and finds the reason in the event iam.set.restored.

With --to plane it is the plane's own registry that is put back; sets and the gateway go on meanwhile. Where the whole plane was lost,
--recovery-key brings its keys and authorities back first, and each tenant is restored afterwards.

On a plane prod a tenant, a copy too, is restored by a plan, as everything else is done to it, and this command takes --to plane alone:

  fleet plan restore --from BACKUP --to acme --replace --reason TEXT
  fleet approve HASH --reason TEXT, by another operator, and fleet apply HASH

Killed anywhere, it is run again; the set does not start while a restore of it is unfinished.`

func (a *app) restoreCommand() *cobra.Command {
	var r plane.RestoreRequest
	c := &cobra.Command{Use: "restore --from BACKUP --to TENANT --reason TEXT", Short: "Put a tenant's set back to what it was when a backup was taken", Long: restoreHelp,
		Example: `  fleet restore --from 20260901T030000Z-k3f9q2 --to acme --reason "Case 4711: the disk of the database was lost"`, Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			r.Actor = "operator"
			done, err := p.Restore(c.Context(), r)
			if err != nil {
				return err
			}
			return a.restored(done)
		}}
	c.Flags().StringVar(&r.From, "from", "", "backup: its directory, or its name as fleet backup list shows it")
	c.Flags().StringVar(&r.To, "to", "", "tenant, by slug or id; plane is the plane's own registry")
	c.Flags().StringVar(&r.Reason, "reason", "", "why, 10 to 500 characters, for the tenant's own record")
	c.Flags().StringVar(&r.RecoveryKey, "recovery-key", "", "file of the recovery key, where the set's own keys are lost")
	c.Flags().BoolVar(&r.Replace, "replace", false, "stop the set where it runs, and give up what it has")
	for _, name := range []string{"from", "to", "reason"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}

// restored says what came of a restore.
func (a *app) restored(done *plane.Restored) error {
	if a.format == "json" {
		return a.json(done)
	}
	if done.Set == "plane" {
		_, err := fmt.Fprintf(a.out, "the registry serves, as of %s: what was changed in the %s until this restore is not in it. It took %s.\n",
			done.TakenAt.Format(time.RFC3339), done.Lost.Round(time.Second), seconds(done.Total))
		return err
	}
	state := "serves"
	if !done.Serves {
		state = "is suspended"
	}
	if done.CopyOf != "" {
		_, err := fmt.Fprintf(a.out, "%s %s, a copy of %s as of %s. What was sealed to %s stayed behind, credentials among it. It took %s.\n",
			done.Slug, state, done.CopyOf, done.TakenAt.Format(time.RFC3339), done.CopyOf, seconds(done.Total))
		return err
	}
	_, err := fmt.Fprintf(a.out, "%s %s, as of %s: what was written in the %s until this restore is not in it, at least %d entries of the audit log among it. It took %s.\n",
		done.Slug, state, done.TakenAt.Format(time.RFC3339), done.Lost.Round(time.Second), done.LostEntries, seconds(done.Total))
	return errors.Join(err, a.notHeld(done.BackedUp))
}
