"""The TaskFlow decorator `@task.ray`: a plain function, called on Ray."""
