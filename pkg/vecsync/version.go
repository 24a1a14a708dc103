package vecsync

import "fmt"

// stateVersion is that of the state's format: of the values under all keys but
// those of findings, which every version reads. It is raised with each change
// after which the state of an older version would be misread. Version 1 has no
// versionKey.
const stateVersion = 2

const versionKey = "version"

// A VersionError says that an index has a state of another version: exit code
// 2. Its findings can be read all the same.
type VersionError struct{ Have string }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the index has a state of version %s, this program's is %d", e.Have, stateVersion)
}

// ExitCode is that of wrong configuration.
func (e *VersionError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *VersionError) Hint() string { return "gb-vecsync rebuild makes it anew from the log" }

// checkVersion refuses a state of another version; ix has some.
func checkVersion(ix getter) error {
	v, err := ix.Get(versionKey)
	switch {
	case err != nil:
		return err
	case v == nil:
		return &VersionError{"1"}
	case string(v) != fmt.Sprint(stateVersion):
		return &VersionError{string(v)}
	}
	return nil
}
