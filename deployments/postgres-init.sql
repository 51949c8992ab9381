-- Runs once, on an empty volume. The third database, `cancellations`, is the image's own POSTGRES_DB.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
