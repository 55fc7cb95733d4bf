# Making an archive is not needed to see where files go.
