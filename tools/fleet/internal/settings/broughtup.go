package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File holds the settings that the plane of a home was last brought up with.
func File(home string) string { return filepath.Join(home, "settings.json") }

// BroughtUp are the settings that the plane of this home was last brought up with; these where it never was.
func (s Settings) BroughtUp() (Settings, error) {
	up := s
	text, err := os.ReadFile(File(s.Home))
	if err == nil {
		err = json.Unmarshal(text, &up)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Settings{}, fmt.Errorf("read the settings that the plane was last brought up with: %w: fleet plane up writes them anew", err)
	}
	up.Home = s.Home
	return up, nil
}
