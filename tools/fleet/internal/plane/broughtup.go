package plane

import (
	"encoding/json"
	"fmt"

	"github.com/google/renameio/v2"

	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/settings"
)

// keepSettings has what goes on in the supervisor go by this plane's settings, from its next turn on, however long ago and with whichever whoever
// started that did so.
func (p *Plane) keepSettings() error {
	before, err := p.Settings.BroughtUp()
	if err == nil && before.BackupDir != p.Settings.BackupDir {
		why := "as A3_BACKUP_DIR says"
		if !p.Settings.BackupDirSaid {
			why = "for A3_BACKUP_DIR is not set here"
		}
		p.report.Note(fmt.Sprintf("backups are kept in %s from now on, %s, and no longer in %s: those that are there stay, and the page tells of their sets until each has a new one; A3_BACKUP_DIR=%s fleet plane up goes on there",
			p.Settings.BackupDir, why, before.BackupDir, before.BackupDir))
	}
	text, err := json.MarshalIndent(ofNobody(p.Settings), "", " ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(settings.File(p.Settings.Home), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep the settings that the plane is brought up with: %w", err)
	}
	return nil
}

// asBroughtUp is a plane of its own by the settings that this one was last brought up with: others of this process go on with theirs meanwhile.
// It reports to nobody.
func (p *Plane) asBroughtUp() (*Plane, error) {
	s, err := p.Settings.BroughtUp()
	if err != nil {
		return nil, err
	}
	return New(ofNobody(s), quiet{})
}

// BroughtUp are the settings that the plane was last brought up with, by whomever; its own where it never was. Whoever works on it need not have those
// by which it goes on: how often backups are made, where, and how many are kept.
func (p *Plane) BroughtUp() (settings.Settings, error) {
	q, err := p.asBroughtUp()
	if err != nil {
		return settings.Settings{}, err
	}
	return q.Settings, nil
}

// ofNobody are settings that say of no operator that they work: what goes on for as long as the plane does is the plane's first operator's, and
// nobody's who may be removed, whoever brought the plane up.
func ofNobody(s settings.Settings) settings.Settings {
	s.Operator, s.OperatorDir = "", ""
	return s
}

// whereBackupsAre has whoever works on backups go by the directory that the plane was brought up with, where nobody said another one here. It is called
// before the plane's state is read.
func (p *Plane) whereBackupsAre() error {
	up, err := p.Settings.BroughtUp()
	if err != nil || up.BackupDir == p.Settings.BackupDir {
		return err
	}
	if !p.Settings.BackupDirSaid {
		p.Settings.BackupDir = up.BackupDir
		return nil
	}
	p.report.Note(fmt.Sprintf("A3_BACKUP_DIR is %s here, and the plane's own backups are kept in %s: unset it to work on those alone", p.Settings.BackupDir, up.BackupDir))
	return nil
}

// backupStores are where backups are looked for: where who works here says, and where the plane keeps its own.
func (p *Plane) backupStores() ([]backup.Store, error) {
	out := []backup.Store{p.platform.Backups()}
	up, err := p.Settings.BroughtUp()
	if err == nil && up.BackupDir != "" && up.BackupDir != out[0].Dir {
		out = append(out, backup.Store{Dir: up.BackupDir})
	}
	return out, err
}
